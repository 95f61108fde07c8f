"""Two daemons at one address, dead ones, and what else can stand in a socket's place: with real processes."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from penstock_daemon.addresses import TcpAddress, UnixAddress
from penstock_daemon.file_lock import FileLock, LockHeldError
from penstock_daemon.socket_guard import ListenError, guard_address

SERVE = """
import socket, sys
from pathlib import Path
from penstock_daemon.addresses import UnixAddress
from penstock_daemon.socket_guard import guard_address
path = Path(sys.argv[1])
guard = guard_address(UnixAddress(path))
server = socket.socket(socket.AF_UNIX)
server.bind(str(path))
server.listen()
guard.after_bind()
print("serving", flush=True)
sys.stdin.read()
guard.release()
"""


@contextmanager
def serving(path: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "serving\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def bound(path: Path, kind: int = socket.SOCK_STREAM) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, kind) as server:
        server.bind(os.fspath(path))
        yield server


def test_second_daemon_on_a_socket_is_refused_and_told_who_serves(tmp_path):
    path = tmp_path / "penstock.sock"
    with serving(path) as first:
        with pytest.raises(ListenError) as refusal:
            guard_address(UnixAddress(path))
        assert str(refusal.value) == (
            f"server.address: must be free, was unix:{path}, where process {first.pid} serves already; stop that one, "
            "or choose another server.address"
        )
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(os.fspath(path))


def test_orderly_stop_leaves_neither_socket_nor_lock(tmp_path):
    with serving(tmp_path / "penstock.sock") as process:
        assert sorted(one.name for one in tmp_path.iterdir()) == ["penstock.sock", "penstock.sock.lock"]
        process.communicate("")
        assert process.returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_killed_daemon_leaves_a_socket_that_the_next_one_takes_over(tmp_path):
    path = tmp_path / "penstock.sock"
    with serving(path) as first:
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert path.is_socket()
        with serving(path) as second:
            assert second.poll() is None
            assert (tmp_path / "penstock.sock.lock").read_text() == f"{second.pid}\n"


def test_socket_is_closed_to_other_users_once_it_is_bound(tmp_path):
    path = tmp_path / "penstock.sock"
    with serving(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_socket_without_a_lock_that_answers_is_not_taken(tmp_path):
    path = tmp_path / "foreign.sock"
    with bound(path) as foreign:
        foreign.listen()
        with pytest.raises(ListenError, match="where another program listens; stop that one"):
            guard_address(UnixAddress(path))
    assert path.is_socket()
    assert not path.with_name("foreign.sock.lock").exists()


def test_datagram_socket_that_is_in_use_is_not_taken(tmp_path):
    path = tmp_path / "foreign.sock"
    with bound(path, socket.SOCK_DGRAM), pytest.raises(ListenError, match="where another program listens"):
        guard_address(UnixAddress(path))
    guard_address(UnixAddress(path)).release()
    assert not path.exists()


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_is_no_socket_is_never_removed(tmp_path, kind):
    path = tmp_path / "penstock.sock"
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ListenError, match=r"must be a socket's path, was unix:.*, which is something else"):
        guard_address(UnixAddress(path))
    assert path.is_symlink() or path.exists()


def test_folder_that_is_missing_is_named(tmp_path):
    with pytest.raises(ListenError, match=f"make {tmp_path}/missing, or choose another server.address"):
        guard_address(UnixAddress(tmp_path / "missing" / "penstock.sock"))


def test_path_that_is_too_long_is_refused_before_anything_is_made(tmp_path):
    path = tmp_path / ("x" * 107)
    with pytest.raises(ListenError, match="at most 107 bytes"):
        guard_address(UnixAddress(path))
    assert list(tmp_path.iterdir()) == []


def test_lock_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "penstock.sock.lock").symlink_to(tmp_path / "victim")
    with pytest.raises(ListenError, match=r"whose penstock\.sock\.lock can't be taken"):
        guard_address(UnixAddress(tmp_path / "penstock.sock"))
    assert not (tmp_path / "victim").exists()


def test_release_leaves_a_socket_that_someone_else_has_bound_since(tmp_path):
    path = tmp_path / "penstock.sock"
    guard = guard_address(UnixAddress(path))
    with bound(path):
        guard.after_bind()
        path.unlink()
        with bound(path):
            guard.release()
            assert path.is_socket()


def test_bound_socket_that_is_gone_is_a_sentence(tmp_path):
    guard = guard_address(UnixAddress(tmp_path / "penstock.sock"))
    with pytest.raises(ListenError, match="its socket must be there"):
        guard.after_bind()
    guard.release()
    guard.release()


def test_port_in_use_is_refused_and_free_again_after():
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = TcpAddress("127.0.0.1", other.getsockname()[1])
        with pytest.raises(ListenError, match=f"must be free, was {address}, where another program listens"):
            guard_address(address)
    guard = guard_address(address)
    guard.after_bind()
    guard.release()


def test_port_with_a_connection_that_lingers_is_free():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = TcpAddress("127.0.0.1", server.getsockname()[1])
        client = socket.create_connection(("127.0.0.1", address.port))
        peer, _ = server.accept()
        peer.close()  # This side closes first, so the server's port lingers in TIME_WAIT.
        client.close()
    guard_address(address)


def test_host_that_is_not_this_one_is_refused():
    with pytest.raises(ListenError, match="must be an address of this host"):
        guard_address(TcpAddress("192.0.2.1", 50051))


def test_host_that_nobody_knows_is_refused():
    with pytest.raises(ListenError, match="must name a host that is known"):
        guard_address(TcpAddress("nowhere.invalid", 50051))


def test_lock_is_held_by_one_of_many_at_any_time(tmp_path):
    path = tmp_path / "lock"
    holders, most, wins = 0, 0, 0
    mutex = threading.Lock()

    def contend() -> None:
        nonlocal holders, most, wins
        for _ in range(200):
            try:
                lock = FileLock.take(path)
            except LockHeldError:
                continue
            with mutex:
                holders += 1
                most, wins = max(most, holders), wins + 1
            with mutex:
                holders -= 1
            lock.release()

    threads = [threading.Thread(target=contend) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert wins > 4
    assert not path.exists()


def test_lock_on_a_file_that_was_just_removed_is_taken_anew(tmp_path, monkeypatch):
    path = tmp_path / "lock"
    holder = FileLock.take(path)
    real, calls = fcntl.flock, []

    def release_in_between(descriptor: int, operation: int) -> None:
        calls.append(descriptor)
        if len(calls) == 1:
            holder.release()
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", release_in_between)
    lock = FileLock.take(path)
    assert len(calls) == 2
    with pytest.raises(LockHeldError):
        FileLock.take(path)
    lock.release()


def test_lock_file_that_is_left_over_is_taken_whatever_stands_in_it(tmp_path):
    path = tmp_path / "lock"
    path.write_text("garbage")
    lock = FileLock.take(path)
    assert path.read_text() == f"{os.getpid()}\n"
    with pytest.raises(LockHeldError, match=f"process {os.getpid()}"):
        FileLock.take(path)
    lock.release()
