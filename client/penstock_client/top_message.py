"""A protobuf message as a plain object: its own field names, enum values without their prefix, None for what is absent.

as_plain(message)["field"]      for every field of the message, whether set or not
"""

from __future__ import annotations

import re
from typing import Any

from google.protobuf.message import Message


def as_plain(message: Message) -> dict[str, Any]:
    """Return *message* as numbers, strings, lists and dicts; bytes become hexadecimal digits."""
    plain: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if _is_repeated(field):
            plain[field.name] = [_plain(field, one) for one in value]
        elif field.has_presence and not message.HasField(field.name):
            plain[field.name] = None
        else:
            plain[field.name] = _plain(field, value)
    return plain


def _is_repeated(field: Any) -> bool:
    """Return whether *field* holds many; protobuf 6 has a new word for it, and warns of the old one."""
    repeated = getattr(field, "is_repeated", None)
    return bool(field.label == field.LABEL_REPEATED if repeated is None else repeated)


def _plain(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return as_plain(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        prefix = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", field.enum_type.name).upper() + "_"
        return known.name.removeprefix(prefix) if known is not None else str(value)
    return value.hex() if isinstance(value, bytes) else value
