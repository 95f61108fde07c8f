"""Addresses, and the gRPC channel behind one: the options, and why each.

A channel serves one stream and is closed with it: a reconnect starts from nothing, with no back-off left over.
"""

from __future__ import annotations

import re
from typing import Any, Final

import grpc.aio

from penstock_client.errors import LocalUsageError

UNIX_PATH_CHARACTERS_MAX: Final = 107  # The kernel's bound for a socket's path, without its final zero.
MESSAGE_BYTES_MAX: Final = 8 * 1024 * 1024  # The largest message either way: the answers to 65,536 ticks.

OPTIONS: Final[tuple[tuple[str, int], ...]] = (
    ("grpc.http2.bdp_probe", 0),  # Its pings cost latency and gain nothing on one host.
    ("grpc.enable_channelz", 0),
    ("grpc.enable_retries", 0),  # A stream is resumed by us; gRPC's retries would buffer what is sent.
    ("grpc.enable_http_proxy", 0),  # A proxy for the web is no road for ticks.
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.use_local_subchannel_pool", 1),  # No back-off shared with an earlier attempt.
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.http2.lookahead_bytes", 4 * 1024 * 1024),  # A full batch of answers fits the stream's window.
)

_HOST_AND_PORT: Final = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\]]+):(?P<port>[0-9]{1,5})")


def checked_address(address: str) -> str:
    """Return *address* as gRPC wants it.

    Args:
        address: "unix:/path/of.sock" or "host:port", "[::1]:port" for IPv6.

    Raises:
        LocalUsageError: neither, a path over 107 characters, or a port outside 1 to 65535.
    """
    if not isinstance(address, str):
        raise LocalUsageError(f"address must be a string: was {address!r}; pass 'unix:/path/of.sock' or 'host:port'")
    if address.startswith("unix:"):
        path = address.removeprefix("unix:")
        if path.startswith("//"):
            path = path.removeprefix("//")
        if not path:
            raise LocalUsageError(f"address must name a socket's path: was {address!r}; pass 'unix:/path/of.sock'")
        if len(path.encode()) > UNIX_PATH_CHARACTERS_MAX:
            raise LocalUsageError(
                f"address must have a path of at most {UNIX_PATH_CHARACTERS_MAX} characters: has {len(path.encode())} "
                f"in {path!r}; use a shorter folder"
            )
        return f"unix:{path}"
    match = _HOST_AND_PORT.fullmatch(address)
    if match is None:
        raise LocalUsageError(f"address must be 'unix:/path/of.sock' or 'host:port': was {address!r}")
    if not 1 <= int(match["port"]) <= 65535:
        raise LocalUsageError(f"address must have a port in 1 to 65535: was {address!r}")
    return address


def open_channel(address: str) -> Any:
    """Open a grpc.aio channel to *address*, as checked_address returns it; nothing is connected yet."""
    return grpc.aio.insecure_channel(address, options=OPTIONS)
