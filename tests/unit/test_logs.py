"""The log, in processes of its own: it is configured once for each."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

import pytest

SAY = """
import logging, threading, warnings
import structlog
from penstock_daemon.logs import configure_logs
early = structlog.get_logger("early")  # As modules have it: made before the log is configured.
configure_logs({level!r}, {log_format!r})
{body}
"""


def say(body: str, level: str = "info", log_format: str = "auto") -> list[dict[str, object]]:
    code = SAY.format(level=level, log_format=log_format, body=body)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_line_is_json_where_no_terminal_reads_it():
    (line,) = say("early.info('session opened', session_id=7, client_name='é')")
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "session opened",
        "level": "info",
        "logger": "early",
        "session_id": 7,
        "client_name": "é",
    }


def test_what_is_below_the_level_is_not_written():
    body = "early.info('a'); early.warning('b'); logging.getLogger('x').info('c'); logging.getLogger('x').error('d')"
    assert [line["event"] for line in say(body, level="warning")] == ["b", "d"]


def test_lines_of_the_standard_library_and_warnings_come_the_same_way():
    lines = say(
        "logging.getLogger('grpc').warning('late by %d', 5, extra={'k': 1}); warnings.warn('old', stacklevel=1)"
    )
    assert (lines[0]["event"], lines[0]["logger"], lines[0]["level"], lines[0]["k"]) == (
        "late by 5",
        "grpc",
        "warning",
        1,
    )
    assert (lines[1]["logger"], lines[1]["level"]) == ("py.warnings", "warning")
    assert "old" in lines[1]["event"]


def test_thread_that_fails_is_one_line():
    body = "t = threading.Thread(target=lambda: 1 / 0, name='feeder'); t.start(); t.join()"
    (line,) = say(body)
    assert line["event"] == "thread failed: thread=feeder"
    assert "ZeroDivisionError" in str(line["exception"])


def test_exception_is_part_of_its_line():
    (line,) = say("try:\n    {}['x']\nexcept KeyError:\n    early.exception('no such key')")
    assert line["level"] == "error"
    assert str(line["exception"]).startswith("Traceback")


def test_control_characters_of_a_value_are_written_as_escapes():
    (line,) = say(r"early.info('hello', client_name='a\x1b[2Jb\nlevel=error\u202e\udcff')")
    assert line["client_name"] == r"a\x1b[2Jb\nlevel=error\u202e\udcff"


def test_console_format_writes_for_people_and_hides_control_characters_too():
    code = SAY.format(level="info", log_format="console", body=r"early.info('hi', client_name='a\x1b[2J\nb')")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert len(done.stderr.splitlines()) == 1
    assert "hi" in done.stderr
    assert r"client_name=a\x1b[2J\nb" in done.stderr
    assert "\x1b" not in done.stderr


def test_terminal_gets_the_console_format():
    ours, theirs = pty.openpty()
    code = SAY.format(level="info", log_format="auto", body="early.info('hi there', a=1)")
    try:
        subprocess.run([sys.executable, "-c", code], stderr=theirs, check=True)
        text = os.read(ours, 4096).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert "hi there" in text
    assert not text.startswith("{")


def test_second_configuration_is_our_mistake():
    with pytest.raises(subprocess.CalledProcessError) as failure:
        say("configure_logs('info', 'json')")
    assert "the log is configured once" in failure.value.stderr


def test_log_that_nobody_reads_stops_nothing():
    code = SAY.format(level="info", log_format="json", body="for _ in range(3): early.info('x')\nprint('alive')")
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=writer, text=True, check=False
        )
    finally:
        os.close(writer)
    assert done.stdout == "alive\n"
