"""Where a server listens: a Unix socket's path, or a host and port.

    unix:PATH      PATH fits the kernel's 107 bytes, and is written as given (relative paths stay relative)
    HOST:PORT      HOST is a name or an IP address, an IPv6 address in brackets

An address is parsed once, here, and is a value everywhere else; ``str()`` gives it back as gRPC takes it.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

UNIX_PATH_BYTES_MAX: Final = 107  # sockaddr_un.sun_path is 108 bytes with its closing zero.
PORT_MAX: Final = 65_535


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A Unix-domain socket."""

    path: Path

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A TCP socket; port 0 lets the kernel choose one."""

    host: str  # Without brackets.
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether only this host can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse_address(text: str) -> UnixAddress | TcpAddress:
    """Return the address that *text* names.

    Raises:
        ValueError: a clause that begins with "must", without the value.
    """
    if text.startswith("unix:"):
        return _parse_unix(text.removeprefix("unix:"))
    host, colon, port_text = text.rpartition(":")
    if not colon or not host:
        raise ValueError("must be unix:PATH or HOST:PORT, such as unix:/run/penstock/penstock.sock or 127.0.0.1:50051")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise ValueError("must have an IPv6 address in its brackets, such as [::1]:50051") from None
    elif ":" in host:
        raise ValueError("must have brackets around an IPv6 address, such as [::1]:50051")
    elif not all(character.isalnum() or character in "-._" for character in host) or not host.isascii():
        raise ValueError("must have a host name or an IP address before the last colon, such as 127.0.0.1:50051")
    if not (port_text.isascii() and port_text.isdigit() and len(port_text) <= 5 and int(port_text) <= PORT_MAX):
        raise ValueError(f"must end in a port of 0 to {PORT_MAX}, such as 127.0.0.1:50051")
    return TcpAddress(host, int(port_text))


def _parse_unix(path_text: str) -> UnixAddress:
    if path_text.startswith("//"):  # unix:///run/x.sock, as gRPC writes absolute paths too.
        path_text = path_text[2:]
        if not path_text.startswith("/"):
            raise ValueError("must be absolute after unix://, such as unix:///run/penstock/penstock.sock")
    if not path_text or "\0" in path_text or path_text.endswith("/"):
        raise ValueError("must have the path of a socket after unix:, such as unix:/run/penstock/penstock.sock")
    path = Path(path_text)
    length_bytes = len(os.fsencode(path))
    if length_bytes > UNIX_PATH_BYTES_MAX:
        raise ValueError(
            f"must have a socket path of at most {UNIX_PATH_BYTES_MAX} bytes (this one has {length_bytes}; choose a "
            "shorter folder such as /run/penstock)"
        )
    return UnixAddress(path)


def default_server_address(environ: Mapping[str, str]) -> str:
    """Return the socket in the user's runtime folder, or in the folder for temporary files where there is none.

    penstock_client.default_address has the same rule: clients find the daemon by it.

    Args:
        environ: XDG_RUNTIME_DIR, TMPDIR, TEMP and TMP are read.
    """
    candidates = []
    runtime_folder = environ.get("XDG_RUNTIME_DIR", "")
    if runtime_folder.startswith("/") and "\0" not in runtime_folder and Path(runtime_folder).is_dir():
        candidates.append(Path(runtime_folder) / "penstock.sock")
    for variable in ("TMPDIR", "TEMP", "TMP"):
        temporary_folder = environ.get(variable, "")
        if temporary_folder.startswith("/") and "\0" not in temporary_folder and Path(temporary_folder).is_dir():
            candidates.append(Path(temporary_folder) / f"penstock-{os.getuid()}.sock")
    for path in candidates:
        if len(os.fsencode(path)) <= UNIX_PATH_BYTES_MAX:
            return f"unix:{path}"
    return f"unix:/tmp/penstock-{os.getuid()}.sock"
