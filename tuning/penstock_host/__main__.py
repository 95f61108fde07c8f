"""``python3 -m penstock_host``: penstock-tune from a copied folder, with the standard library alone."""

from __future__ import annotations

import sys

from penstock_host.cli import main

if __name__ == "__main__":
    sys.exit(main())
