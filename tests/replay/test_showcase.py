"""``make run`` as a user runs it: a report that can be opened, nothing left behind, and an end when asked for one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from penstock_client.files import write_ticks
from penstock_client.instruments import Instrument
from support.simulated import market

FINISHES_S = 300.0
STOPS_S = 60.0


class Showcase:
    """One run of the showcase, in a folder and a session of its own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-m", "penstock_tuning.showcase", "--folder", str(folder), *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
            start_new_session=True,
        )  # fmt: skip
        self._watch = threading.Timer(FINISHES_S, self.kill_all)
        self._watch.start()
        self.lines: list[str] = []

    def read(self, until: str = "") -> str:
        """Read the output until a line that has *until* in it, or to its end. Returns all that was read."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if until and until in line:
                break
        text = "".join(self.lines)
        assert until in text, text
        return text

    def members(self) -> dict[int, str]:
        """Return the living processes of the session, which whatever the showcase starts belongs to."""
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                name, _, rest = (entry / "stat").read_text().partition(") ")
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:  # It ended while we looked.
                continue
            state, _, _, session = rest.split()[:4]
            if int(session) == self.process.pid and state != "Z":
                found[int(entry.name)] = command or name
        return found

    def kill_all(self) -> None:
        self._watch.cancel()
        for pid in self.members():
            os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def ends_alone(self) -> int:
        """Wait for its end. Returns its exit code, once nothing that it started lives."""
        code = self.process.wait(STOPS_S)
        deadline = time.monotonic() + 60
        while self.members() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert self.members() == {}
        assert not list(self.folder.glob("*.sock*")), "the socket went with the daemon"
        return code


@pytest.fixture
def showcase(tmp_path):
    """Give a function that starts a showcase, which is ended in any case."""
    started = []

    def start(*arguments: str) -> Showcase:
        started.append(Showcase(tmp_path / "run", *arguments))
        return started[-1]

    yield start
    for one in started:
        one.kill_all()
        assert one.process.stdout is not None
        one.process.stdout.close()


@pytest.fixture(scope="module")
def ticks(tmp_path_factory) -> str:
    """A recording of a simulated half minute."""
    path = tmp_path_factory.mktemp("ticks") / "half-minute.dbn.zst"
    made = market(3, 30.0)
    symbols = {int(number): f"TEST{number}" for number in sorted(set(made.ticks["instrument_id"].tolist()))}
    write_ticks(path, made.ticks, [Instrument(number, symbol, "TEST.VENUE") for number, symbol in symbols.items()])
    return str(path)


def report_of(run: Showcase) -> str:
    page = (run.folder / "report.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "</html>" in page
    return page


def test_simulated_market_ends_with_a_report_that_names_the_model(showcase):
    run = showcase("--seconds", "1")
    output = run.read()
    assert run.ends_alone() == 0, output
    assert "Traceback" not in output
    assert f"Open {run.folder / 'report.html'} in a browser" in output
    assert output.count(" 0 errors, 0 lost") == 2, "at true speed and at full speed"
    page = report_of(run)
    assert "showcase" in page
    assert "never trade on it" in page, "it is a demonstration, and says so"


def test_ticks_of_the_users_own_are_trained_on_and_replayed(showcase, ticks):
    run = showcase("--seconds", "1", "--ticks", ticks)
    output = run.read()
    assert run.ends_alone() == 0, output
    assert "Traceback" not in output
    assert ticks in output
    page = report_of(run)
    assert "showcase" in page
    assert "TEST1" in page
    assert "never trade on it" not in page, "nothing simulated, as far as it knows"
    assert not (run.folder / "market.dbn.zst").exists()


def test_signal_in_the_middle_stops_everything(showcase, ticks):
    run = showcase("--seconds", "30", "--ticks", ticks)
    run.read(until="$ penstock replay")
    assert any("penstockd" in command for command in run.members().values()), "the daemon serves"
    run.process.send_signal(signal.SIGTERM)
    output = run.read()
    assert run.ends_alone() == 130, output
    assert "Traceback" not in output
    assert not (run.folder / "report.html").exists() or report_of(run)


def test_signal_while_it_trains_stops_everything(showcase, ticks):
    run = showcase("--ticks", ticks)
    run.read(until="$ penstock-train fit")
    run.process.send_signal(signal.SIGINT)
    output = run.read()
    assert run.ends_alone() == 130, output
    assert "Traceback" not in output
    assert not (run.folder / "report.html").exists()


def test_file_that_is_not_there_is_a_sentence(showcase, tmp_path):
    run = showcase("--ticks", str(tmp_path / "none.dbn"))
    output = run.read()
    assert run.ends_alone() == 2
    assert "none.dbn" in output
    assert "Traceback" not in output
