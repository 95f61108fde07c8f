"""Optional libraries, imported where they are used; a missing one is a sentence that says what to install."""

from __future__ import annotations

import importlib
from typing import Any

from penstock_client.errors import PenstockError


class MissingExtraError(PenstockError, ImportError):
    """A library of an optional extra is not installed."""


def require(module: str, *, extra: str, purpose: str) -> Any:
    """Import *module*, which belongs to *extra*.

    Args:
        module: dotted name, such as "pyarrow.parquet".
        extra: of penstock's optional dependencies, such as "files".
        purpose: what the caller wants it for, as it stands in the sentence: "reading DBN files".

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as exc:
        if exc.name is None or not module.startswith(exc.name.partition(".")[0]):
            raise
        raise MissingExtraError(
            f"{purpose} needs {module.partition('.')[0]}, which is not installed: pip install 'penstock[{extra}]'"
        ) from exc
