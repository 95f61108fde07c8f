"""The C header says what shared_ring.py says, compiles without a warning, and its example runs against a real daemon."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import penstock.v1
from penstock.v1 import shared_ring as layout
from penstock.v1.records import FORECAST_DTYPE, PREDICTION_DTYPE, TICK_DTYPE, TICK_LENGTH_WORDS, TICK_RTYPE
from penstock_client import Instrument, blocking
from support.daemon import RunningDaemon
from support.host_compiler import host_compiler

HEADER = Path(penstock.v1.C_INCLUDE) / "penstock_ring.h"
EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "penstock_ring_example.c"
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-pedantic")
WORDS = {
    "tick_published": layout.TICK_PUBLISHED_AT,
    "prediction_consumed": layout.PREDICTION_CONSUMED_AT,
    "client_waiting": layout.CLIENT_WAITING_AT,
    "tick_consumed": layout.TICK_CONSUMED_AT,
    "prediction_published": layout.PREDICTION_PUBLISHED_AT,
    "engine_sleeping": layout.ENGINE_SLEEPING_AT,
    "daemon_beat_ns": layout.DAEMON_BEAT_NS_AT,
    "closed": layout.CLOSED_AT,
}
CONSTANTS = {
    "magic": layout.MAGIC_AT,
    "layout_version": layout.LAYOUT_VERSION_AT,
    "slots": layout.SLOTS_AT,
    "segment_bytes": layout.SEGMENT_BYTES_AT,
    "tick_ring": layout.TICK_RING_AT,
    "prediction_ring": layout.PREDICTION_RING_AT,
    "session_id": layout.SESSION_ID_AT,
    "first_sequence": layout.FIRST_SEQUENCE_AT,
    "tick_slot_bytes": layout.TICK_SLOT_BYTES_AT,
    "prediction_slot_bytes": layout.PREDICTION_SLOT_BYTES_AT,
}


def c_compiler() -> tuple[str, ...]:
    """Return a C compiler, and a C++ one's like for `-x c++`."""
    for name in ("gcc", "clang"):
        if path := shutil.which(name):
            return (path,)
    return host_compiler()


def compiled(source: str, target: Path, *flags: str) -> Path:
    # C++ is only parsed: a C compiler may lack the library to link it with.
    command = [*c_compiler(), *flags, *WARNINGS, "-O2", "-I", str(HEADER.parent), "-o", str(target), "-"]
    done = subprocess.run(command, input=source, capture_output=True, text=True, check=False, timeout=170)
    assert done.returncode == 0, done.stderr
    return target


def offsets() -> dict[str, int]:
    """Return every offset and size that Python knows, by its name in C."""
    known = {f"penstock_header.{name}": at for name, at in (CONSTANTS | WORDS).items()}
    for kind, dtype in (
        ("penstock_tick", TICK_DTYPE),
        ("penstock_tick_slot", layout.TICK_SLOT_DTYPE),
        ("penstock_forecast", FORECAST_DTYPE),
        ("penstock_prediction", PREDICTION_DTYPE),
    ):
        known |= {f"{kind}.{name}": int(field[1]) for name, field in dict(dtype.fields or {}).items()}
        known[kind] = dtype.itemsize
    known |= {
        "penstock_header": layout.HEADER_BYTES,
        "penstock_request": layout.ATTACH_REQUEST.size,
        "penstock_reply": layout.ATTACH_REPLY.size,
    }
    return known


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("example") / "ring_example"
    return compiled(EXAMPLE.read_text(), target, "-x", "c", "-std=c11", "-D_GNU_SOURCE")


def test_every_offset_and_size_is_that_of_the_layout(tmp_path: Path):
    asked = []
    for name in offsets():
        kind, _, field = name.partition(".")
        number = f"offsetof({kind}, {field})" if field else f"sizeof({kind})"
        asked.append(f'printf("{name} %zu\\n", {number});')
    program = "\n".join(['#include "penstock_ring.h"', "int main(void) {", *asked, "return 0; }"])
    built = compiled(program, tmp_path / "offsets", "-x", "c", "-std=c11", "-D_GNU_SOURCE")
    said = subprocess.run([built], capture_output=True, text=True, check=True).stdout
    assert {name: int(number) for name, number in (line.split() for line in said.splitlines())} == offsets()


def test_every_number_of_the_header_is_that_of_the_layout():
    text = HEADER.read_text()
    defined = dict(re.findall(r"#define (PENSTOCK_\w+) (.+?)(?: /\*.*)?$", text, re.MULTILINE))
    numbers = {
        "LAYOUT_VERSION": layout.LAYOUT_VERSION,
        "MAGIC": layout.MAGIC,
        "HEADER_BYTES": layout.HEADER_BYTES,
        "SLOTS_MIN": layout.SLOTS_MIN,
        "TOKEN_BYTES": layout.TOKEN_BYTES,
        "REPLY_BYTES_MAX": layout.ATTACH_REPLY_BYTES_MAX,
        "REFUSED_FLAG": layout.REFUSED_FLAG,
        "TICK_LENGTH": TICK_LENGTH_WORDS,
        "TICK_RTYPE": TICK_RTYPE,
    }
    for name, number in numbers.items():
        assert int(re.sub(r"UINT64_C\((.*)\)|u$", r"\1", defined[f"PENSTOCK_{name}"]), 0) == number, name
    assert defined["PENSTOCK_SLOTS_MAX"] == "(1u << 20)"
    assert layout.SLOTS_MAX == 1 << 20
    for end in layout.SegmentEnd:
        assert f"PENSTOCK_{end.name} = {end.value}" in text


@pytest.mark.parametrize("standard", ["c++11", "c++20"])
def test_the_header_is_cpp_too(tmp_path: Path, standard: str):
    compiled('#include "penstock_ring.h"', tmp_path / "header.o", "-x", "c++", f"-std={standard}", "-c")


def launched(daemon: RunningDaemon, *command: str) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "penstock_client.shared_memory.launch", daemon.address]
    return subprocess.run(
        [*launcher, "--instrument", "1:BTCUSDT", "--", *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def example_ticks(count: int) -> np.ndarray:
    """Return the ticks that the example sends."""
    number = np.arange(count)
    ticks = np.zeros(count, TICK_DTYPE)
    ticks["length"], ticks["rtype"], ticks["instrument_id"] = TICK_LENGTH_WORDS, TICK_RTYPE, 1
    ticks["ts_event"] = ticks["ts_recv"] = 1_700_000_000_000_000_000 + number * 1_000_000
    ticks["price"], ticks["action"], ticks["side"] = 2**63 - 1, ord("A"), ord("N")
    mid = 50_000_000_000_000 + number % 7 * 10_000_000
    ticks["bid_px"], ticks["ask_px"] = mid - 5_000_000, mid + 5_000_000
    ticks["bid_sz"], ticks["ask_sz"], ticks["bid_ct"], ticks["ask_ct"] = 1 + number % 3, 2, 1, 1
    return ticks


def test_the_example_gets_the_predictions_that_python_gets(rings_daemon: RunningDaemon, example: Path):
    count = 500
    done = launched(rings_daemon, str(example), str(count))
    assert done.returncode == 0, done.stderr
    with blocking.connect(rings_daemon.address, instruments=[Instrument(1, "BTCUSDT")]) as session:
        session.send(example_ticks(count))
        session.finish()
        predictions = np.concatenate([batch.predictions for batch in session.batches()])
    lines = done.stdout.splitlines()
    assert len(lines) == count
    for line, prediction in zip(lines, predictions, strict=True):
        used = prediction["forecasts"][: prediction["horizons"]]
        words = [str(int(prediction["sequence"]))]
        for forecast in used:
            words += [f"{float(forecast['expected_return']):.9g}"]
            words += [str(int(forecast["probability_up"])), str(int(forecast["probability_down"]))]
        assert line == " ".join(words)


def test_a_token_that_was_used_is_refused_in_words(rings_daemon: RunningDaemon, example: Path):
    done = launched(rings_daemon, "sh", "-c", f"{example} 3 && {example} 3")
    assert done.returncode != 0
    assert "not attached: " in done.stderr


@pytest.mark.parametrize("connections", [0, 2], ids=["no reply", "no room to connect"])
def test_a_daemon_that_stands_still_is_given_up_after_the_timeout(tmp_path: Path, connections: int):
    flags = ("-x", "c", "-std=c11", "-D_GNU_SOURCE", "-DPENSTOCK_ATTACH_MS=20")
    impatient = compiled(EXAMPLE.read_text(), tmp_path / "impatient", *flags)
    path = str(tmp_path / "a.sock")
    with contextlib.ExitStack() as held:
        listener = held.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        listener.bind(path)
        listener.listen(0 if connections else 1)
        for _ in range(connections):
            waiting = held.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK))
            with contextlib.suppress(BlockingIOError):
                waiting.connect(path)
        named = {"PENSTOCK_RING_ADDRESS": path, "PENSTOCK_RING_TOKEN": "00" * layout.TOKEN_BYTES}
        done = subprocess.run(
            [impatient], capture_output=True, text=True, check=False, timeout=60, env=os.environ | named
        )
    assert done.returncode == 1
    assert done.stderr == f"not attached: the daemon's socket for shared memory: {os.strerror(errno.ETIMEDOUT)}\n"


def test_the_launcher_tells_what_is_wrong(rings_daemon: RunningDaemon, example: Path):
    assert launched(rings_daemon, "false").returncode == 1
    nobody = subprocess.run(
        [
            sys.executable,
            "-m",
            "penstock_client.shared_memory.launch",
            "somewhere",
            "--instrument",
            "1:A",
            "--",
            "true",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (nobody.returncode, nobody.stderr.count("\n")) == (2, 1)
    alone = subprocess.run([example], capture_output=True, text=True, check=False, env=dict(os.environ))
    assert alone.returncode == 2
    assert "PENSTOCK_RING_ADDRESS" in alone.stderr
