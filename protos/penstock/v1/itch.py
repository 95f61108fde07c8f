"""How long each message of Nasdaq TotalView-ITCH 5.0 is: for who applies them, and for who plays them from a file.

Source: Nasdaq TotalView-ITCH 5.0 specification.
"""

from __future__ import annotations

from typing import Final

# Bytes by type, the type's own byte included.
MESSAGE_BYTES: Final = {
    "S": 12, "R": 39, "H": 25, "Y": 20, "L": 26, "V": 35, "W": 12, "K": 28, "J": 35, "h": 21, "A": 36, "F": 40,
    "E": 31, "C": 36, "X": 23, "D": 19, "U": 35, "P": 44, "Q": 40, "B": 19, "I": 50, "N": 20, "O": 48,
}  # fmt: skip
