"""Where strategies attach, and who is told that they can't, as the configuration has it."""

from __future__ import annotations

import grp
import os
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from structlog.testing import capture_logs

from penstock_daemon import derived
from penstock_daemon.config import Config, ServerConfig, SharedMemoryConfig, load_config
from penstock_daemon.config_fields import ConfigError
from penstock_daemon.faults import SessionFault
from penstock_daemon.hello_checks import check_hello
from penstock_daemon.shared_memory import parts
from penstock_daemon.shared_memory.attach_server import group_id
from penstock_daemon.socket_guard import ListenError
from support.raw_stream import hello


def config(server: str, **shared: object) -> Config:
    return replace(
        Config.defaults(),
        server=ServerConfig(address=server),
        shared_memory=SharedMemoryConfig(**shared),  # type: ignore[arg-type]
    )


def test_socket_stands_beside_the_servers_where_nothing_else_is_said() -> None:
    found = config("unix:/run/penstock/penstock.sock")
    assert str(derived.attach_address(found)) == "unix:/run/penstock/penstock.sock.shm"
    assert derived.session_limits(found).segments_max == 16
    assert derived.engine_sizes(found).segment_instruments == found.sessions.instruments_max


@pytest.mark.parametrize("off", [config("127.0.0.1:50051"), config("unix:/run/s.sock", enabled=False)])
def test_there_is_none_over_tcp_or_where_it_is_off(off: Config) -> None:
    assert derived.attach_address(off) is None
    assert derived.session_limits(off).segments_max == 0
    assert derived.engine_sizes(off).segment_instruments == 0
    with pytest.raises(SessionFault) as refused:
        check_hello(hello(shared_memory=True), instruments_max=4, online_allowed=False, shared_allowed=False)
    assert refused.value.reason == "SHARED_MEMORY_DISABLED"


def test_tcp_with_an_address_for_it_has_one() -> None:
    found = config("127.0.0.1:50051", address="unix:/run/attach.sock")
    assert str(derived.attach_address(found)) == "unix:/run/attach.sock"


@pytest.mark.parametrize(
    ("key", "value"),
    [("slots", "100"), ("slots", "32"), ("address", "127.0.0.1:1"), ("segments_max", "0"), ("attach_timeout_s", "0")],
)
def test_settings_out_of_bounds_are_named(key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=rf"shared_memory\.{key}: must be"):
        load_config(None, {}, [f"shared_memory.{key}={value}"])


def test_group_that_does_not_exist_is_named() -> None:
    assert group_id("") is None
    with pytest.raises(
        ListenError, match=r"shared_memory\.group: must be a group of this host, was nobody-has-this-name"
    ):
        group_id("nobody-has-this-name")


@pytest.mark.parametrize(("mode", "named", "told"), [("2", True, 1), ("2", False, 0), ("0", True, 0)])
def test_a_group_is_warned_of_where_its_members_could_end_the_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, mode: str, named: bool, told: int
) -> None:
    setting = tmp_path / "overcommit_memory"
    setting.write_text(f"{mode}\n")
    monkeypatch.setattr(parts, "_OVERCOMMIT", setting)  # The host's own is every process's.
    name = grp.getgrgid(os.getegid()).gr_name
    with TemporaryDirectory(prefix="penstock-") as folder, capture_logs() as logs:
        found = parts.SharedMemory.guard(config(f"unix:{folder}/s.sock", group=name if named else ""))
        assert found is not None
        found.release()
    assert [log["event"] for log in logs] == ["shared_memory_holes"] * told


def test_there_is_none_where_its_path_would_be_too_long(tmp_path: Path) -> None:
    longest = f"{tmp_path}/".ljust(107, "s")
    assert derived.attach_address(config(f"unix:{longest}")) is None
    assert derived.attach_address(config(f"unix:{longest[:-4]}")) is not None
