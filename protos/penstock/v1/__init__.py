"""Version 1 of the contract: messages, records and layouts, without behaviour."""

from typing import Final

C_INCLUDE: Final = f"{__path__[0]}/include"  # Where penstock_ring.h is, for a C or C++ compiler's -I.
