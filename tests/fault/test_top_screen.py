"""``penstock top`` on a real terminal, and without one, against a real daemon that comes and goes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock_client.cli import main
from support.daemon import RunningDaemon, running_daemon, small
from support.raw_stream import RawStream, instruments, run_through
from support.relay import Relay
from support.terminal import Terminal
from support.tick_arrays import quotes

LEFT = "\x1b[?25h\x1b[?1049l"  # The cursor is back, and the screen that was there before.


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("top")


@pytest.fixture(scope="module")
def daemon(folder: Path) -> Iterator[RunningDaemon]:
    with running_daemon(folder, *small(folder)) as daemon:
        yield daemon


def session_ticks(lines: list[str]) -> str:
    """Return what a picture says of the strategy's ticks in all."""
    (row,) = (line for line in lines if "a strategy" in line)
    return row.split()[-3]


def top(daemon: RunningDaemon, *more: str) -> list[str]:
    return ["top", "--to", daemon.address, "--interval", "0.2", *more]


def test_screen_follows_size_and_keys_and_leaves_the_terminal_whole(daemon: RunningDaemon) -> None:
    with RawStream(daemon.address) as stream, Terminal(top(daemon)) as terminal:
        stream.hello(instruments=instruments(1), client_name="a strategy")
        run_through(stream, quotes(50))
        lines = terminal.until("SERVING", "a strategy", "realtime", "total", "figures of the last")
        assert len(lines) <= 24
        assert max(len(line) for line in lines) <= 80
        terminal.resize(132, 50)
        assert len(terminal.until("RINGS", "CLOCKS", "penstock.sock")) <= 50
        terminal.resize(80, 6)
        small_picture = terminal.until("STAGES", "hidden", gone="CLOCKS")
        assert len(small_picture) <= 6
        terminal.resize(100, 30)
        assert session_ticks(terminal.until("SESSIONS", "a strategy")) == "50"
        terminal.press("p")
        terminal.until("(paused)")
        run_through(stream, quotes(20))
        assert main(top(daemon, "--once", "--json")) == 0  # An interval goes by.
        terminal.press("x")  # No key of its own: nothing happens.
        terminal.resize(101, 30)
        terminal.forget()
        terminal.resize(102, 30)
        assert session_ticks(terminal.until("(paused)", "a strategy")) == "50"
        terminal.press("p")
        terminal.forget()
        assert session_ticks(terminal.until("p pause", "70", gone="(paused)")) == "70"
        assert terminal.settings() != terminal.before
        terminal.press("q")
        assert terminal.ended() == 0
        assert terminal.written.endswith(LEFT)
        assert terminal.settings() == terminal.before
        stream.goodbye()
        assert stream.end().code == "OK"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_interrupted_screen_leaves_the_terminal_whole(daemon: RunningDaemon, number: int, code: int) -> None:
    with Terminal(top(daemon)) as terminal:
        terminal.until("SERVING")
        if number == signal.SIGINT:
            terminal.press("\x03")
        else:
            os.kill(terminal.process.pid, number)
        assert terminal.ended() == code
        assert terminal.written.endswith(LEFT)
        assert terminal.settings() == terminal.before


def test_screen_that_is_stopped_leaves_the_terminal_whole_and_comes_back(daemon: RunningDaemon) -> None:
    with Terminal(top(daemon)) as terminal:
        terminal.until("SERVING")
        terminal.press("\x1a")
        _, status = os.waitpid(terminal.process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        assert terminal.settings() == terminal.before
        os.kill(terminal.process.pid, signal.SIGCONT)
        terminal.forget()
        terminal.until("SERVING")
        assert terminal.settings() != terminal.before
        terminal.press("q")
        assert terminal.ended() == 0
        assert terminal.settings() == terminal.before


def test_closed_window_ends_it_without_a_word(daemon: RunningDaemon) -> None:
    with Terminal(top(daemon)) as terminal:
        terminal.until("SERVING")
        terminal.close()
        assert terminal.process.wait(60) == 129


def test_daemon_that_goes_away_is_waited_for_and_shown_again(daemon: RunningDaemon, socket_path: Path) -> None:
    with Terminal(["top", "--to", f"unix:{socket_path}", "--interval", "0.1"]) as terminal:
        terminal.until("waiting for a daemon at")
        with Relay(socket_path, daemon.address):
            terminal.until("  SERVING", "figures of the last")
        terminal.until("DAEMON GONE", "waiting for it")
        with Relay(socket_path, daemon.address) as relay:
            terminal.until("  SERVING", gone="DAEMON GONE")
            relay.freeze()
            terminal.until("NO ANSWER for")
            terminal.press("q")
            assert terminal.ended() == 0
        assert "Traceback" not in terminal.written


def test_colours_are_left_out_where_they_are_not_wanted(daemon: RunningDaemon) -> None:
    with Terminal(top(daemon), NO_COLOR="1") as terminal:
        terminal.until("SERVING")
        terminal.press("q")
        assert terminal.ended() == 0
        assert "\x1b[1;32m" not in terminal.written
    with Terminal(top(daemon)) as terminal:
        terminal.until("SERVING")
        assert "\x1b[1;32mSERVING" in terminal.written


def test_once_prints_all_of_one_interval_as_text_and_as_json(
    daemon: RunningDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    with RawStream(daemon.address) as stream:
        stream.hello(instruments=instruments(1), client_name="a strategy")
        assert main(top(daemon, "--once", "--json")) == 0
        (line,) = capsys.readouterr().out.splitlines()
        facts = json.loads(line)
        assert facts["serving"] is True
        assert [one["client_name"] for one in facts["sessions"]] == ["a strategy"]
        assert facts["interval_s"] >= 0.2
        assert {one["stage"] for one in facts["stages"]} >= {"RECEIVE", "PREDICT", "TOTAL"}
        assert main(top(daemon, "--once")) == 0
        shown = capsys.readouterr().out
        for text in ("SERVING", "STAGES", "SESSIONS 1/", "a strategy", "RINGS", "ENGINE", "CLOCKS"):
            assert text in shown
        assert "\x1b" not in shown
        stream.goodbye()


def test_pipe_gets_lines_of_text_until_its_reader_leaves(daemon: RunningDaemon) -> None:
    command = [sys.executable, "-m", "penstock_client.cli", *top(daemon)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        process.stdout.close()
        assert process.wait(60) == 0
    assert all(" serving, " in line or " look at: " in line for line in lines)
    assert not any("\x1b" in line for line in lines)


def test_nobody_there_and_bad_usage_have_their_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nobody = ["top", "--to", f"unix:{tmp_path}/no.sock", "--interval", "0.1", "--timeout", "0.2", "--once", "--json"]
    assert main(nobody) == 3
    assert "no daemon answered at" in capsys.readouterr().err
    for more, sentence in (
        (["--interval", "0.01"], "--interval must be in 0.1 to 3600 seconds: was 0.01"),
        (["--interval", "nan"], "--interval must be"),
        (["--timeout", "0"], "--timeout must be"),
    ):
        assert main(["top", "--once", *more]) == 2
        assert sentence in capsys.readouterr().err
    assert main(["top", "--to", "nowhere", "--once", "--json"]) == 2
