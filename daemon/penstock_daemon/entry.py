"""Calling compiled code without paying for the question which of its versions fits.

A Numba dispatcher looks at the type of every argument at every call: 5 us for the buffers of the engine. The tick path
calls each of its functions with the same types for ever, so it asks once and keeps the answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def bind(dispatcher: Any, *arguments: Any) -> Callable[..., Any]:
    """Compile *dispatcher* for *arguments* by calling it, and return that version.

    Args:
        dispatcher: made by numba.njit.
        arguments: of the types that every later call will have; the call must do no harm.

    Returns:
        The compiled version as a callable that still checks what it unpacks, but no longer chooses; the dispatcher
        itself where this Numba shows no entry point.
    """
    dispatcher(*arguments)
    versions = list(getattr(dispatcher, "overloads", {}).values())
    entry = getattr(versions[0], "entry_point", None) if len(versions) == 1 else None
    return entry if callable(entry) else dispatcher
