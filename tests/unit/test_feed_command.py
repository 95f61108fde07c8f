"""``penstock feed``: which files it takes, and a sentence for every file and flag that it does not."""

from __future__ import annotations

import datetime as dt
import re

import numpy as np
import pytest

from penstock.v1.moldudp64 import session_bytes
from penstock_client.cli import main
from penstock_client.feed_command import new_session
from penstock_client.feed_file import PAYLOAD_DBN, PAYLOAD_ITCH, open_feed_file
from penstock_client.files import write_ticks
from penstock_client.instruments import Instrument
from support.itch_files import itch_message, itch_messages, write_itch
from support.tick_arrays import quotes

DAY = dt.date(2010, 12, 24)
GROUP = ["--group", "239.255.77.9:26400"]


@pytest.fixture
def day(tmp_path):
    write_ticks(tmp_path / "day.dbn", quotes(20), [Instrument(1, "BTCUSDT")])
    return str(tmp_path / "day.dbn")


def test_a_tick_file_is_records_by_ts_recv(tmp_path):
    ticks = quotes(20)
    write_ticks(tmp_path / "day.dbn.zst", ticks[::-1], [Instrument(1, "BTCUSDT")])
    file = open_feed_file(tmp_path / "day.dbn.zst", None)
    assert (file.payload, file.messages) == (PAYLOAD_DBN, 20)
    assert np.array_equal(file.times_ns, ticks["ts_recv"])
    assert bytes(file.blocks[:82]) == b"\0\x50" + ticks[:1].tobytes()


@pytest.mark.parametrize("name", ["day.itch", "day.itch.gz"])
@pytest.mark.parametrize("lengths", [True, False])
def test_an_itch_file_is_its_messages_by_their_time_of_day(tmp_path, name, lengths):
    messages = itch_messages(30, start_ns=34_200_000_000_000, gap_ns=5)
    file = open_feed_file(write_itch(tmp_path / name, messages, lengths=lengths), DAY)
    found = [bytes(file.blocks[start + 2 : end]) for start, end in zip(file.starts, file.starts[1:], strict=False)]
    assert (file.payload, found) == (PAYLOAD_ITCH, messages)
    told = [int.from_bytes(file.blocks[start : start + 2], "big") for start in file.starts[:-1]]
    assert told == [len(message) for message in messages]
    assert int(file.times_ns[0]) == int(dt.datetime(2010, 12, 24, 9, 30, tzinfo=dt.UTC).timestamp()) * 10**9
    assert np.array_equal(np.diff(file.times_ns), np.full(29, 5))


@pytest.mark.recorded
def test_the_artificial_itch_file_is_read_whole(recorded_file):
    assert open_feed_file(recorded_file("itch/ex20101224.TEST_ITCH_50.gz"), DAY).messages == 12_012


def _text(path):
    path.write_text("time,price\n1,2\n")


def _nothing(path):
    path.write_bytes(b"")


def _cut_gzip(path):
    path.write_bytes(write_itch(path.with_suffix(".gz"), itch_messages(300)).read_bytes()[:-20])


def _cut_message(path):
    path.write_bytes(write_itch(path, itch_messages(30)).read_bytes()[:-3])


def _wrong_length(path):
    write_itch(path, [*itch_messages(3), itch_message("D", 21, 34_300_000_000_000)])


def _unknown_type(path):
    write_itch(path, [*itch_messages(3), itch_message("z", 19, 34_300_000_000_000)])


def _after_midnight(path):
    write_itch(path, [*itch_messages(3), itch_message("D", 19, 86_400_000_000_000)])


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (_text, "this is no tick file"),
        (_nothing, "it is empty"),
        (_cut_gzip, "gzip stream is cut"),
        (_cut_message, "record 29: the file ends inside a message"),
        (_wrong_length, r"record 3: a message of type D has 19 bytes \(length=21\)"),
        (_unknown_type, r"record 3: this is no ITCH 5.0 message \(type='z'\)"),
        (_after_midnight, "record 3: a time of day must be before midnight"),
        (lambda _: None, "can't be read"),
    ],
)
def test_a_file_that_is_not_sound_is_a_sentence_and_sends_nothing(tmp_path, capsys, write, said):
    write(tmp_path / "day")
    assert main(["feed", str(tmp_path / "day"), "--date", "2010-12-24", *GROUP]) == 2
    error = capsys.readouterr().err
    assert re.search(said, error), error
    assert "; " in error
    assert "session" not in error


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--group", "10.0.0.1:26400"], "--group must be in 224.0.0.0"),
        (["--group", "239.1.2.3"], "--group must be an IPv4 multicast address and a port"),
        (["--group", "[ff02::1]:26400"], "--group must be an IPv4"),
        (["--group", "239.1.2.3:0"], "--group must have a port"),
        (["--group-b", "239.255.77.9:26400"], "--group-b must be another group"),
        (["--interface", "no-such0"], "--interface must be one of this machine's"),
        (["--speed", "0"], "speed must be a number above 0"),
        (["--seconds", "0"], "--seconds must be"),
        (["--skip", "-1"], "--skip must be"),
        (["--heartbeat", "nan"], "--heartbeat must be"),
        (["--linger", "inf"], "--linger must be"),
        (["--ttl", "256"], "--ttl must be in 0 to 255"),
        (["--recovery-port", "65536"], "--recovery-port must be in 0 to 65535"),
        (["--payload", "22"], "--payload must be in 23"),
        (["--payload", "101"], "--payload must hold the longest message: payload=101; take 102 or more"),
        (["--session", "ELEVEN CHAR"], "--session must be 1 to 10"),
        (["--drop", "1.5"], "--drop must be a share"),
        (["--drop", "0.6", "--reorder", "0.6"], "must be at most 1 together"),
        (["--seed", "-1"], "--seed must be 0 or more"),
        (["--date", "2010-12-24"], "--date is for ITCH files"),
        (["--date", "yesterday"], "--date must be a day"),
        (["--skip", "9999"], "nothing is left to play"),
    ],
)
def test_a_flag_that_does_not_fit_is_a_sentence(day, capsys, flags, said):
    assert main(["feed", day, *GROUP, "--quiet", *flags]) == 2
    assert said in capsys.readouterr().err


def test_an_itch_file_without_a_date_is_a_sentence(tmp_path, capsys):
    assert main(["feed", str(write_itch(tmp_path / "day", itch_messages())), *GROUP]) == 2
    assert "--date must say of which day" in capsys.readouterr().err


def test_each_play_is_a_session_of_its_own_that_tells_the_day():
    first, second = new_session(1_723_161_256, 1_800_000_000.0), new_session(1_723_161_256, 1_800_000_001.9)
    assert first[:6] == second[:6] == "240808"
    assert session_bytes(first) != session_bytes(second)
