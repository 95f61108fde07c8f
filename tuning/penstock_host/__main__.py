"""``python3 -m penstock_host``: penstock-tune from a copied folder, with the standard library alone.

A Python that is too old for the rest reads this file, and says so in a sentence: nothing newer than 3.6 stands in it.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 (a bare host has whatever Python it came with)
    sys.stderr.write(
        f"penstock-tune: want Python 3.11 or newer, was {sys.version_info[0]}.{sys.version_info[1]}; start it with another, "
        "such as python3.11 -m penstock_host\n"
    )
    sys.exit(2)

from penstock_host.cli import main

if __name__ == "__main__":
    sys.exit(main())
