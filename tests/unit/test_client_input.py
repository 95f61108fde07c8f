"""What a caller gets wrong is refused before anything is sent, by a sentence that names field, value and mend."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest

from penstock.v1 import prediction_pb2 as pb
from penstock.v1.records import TICK_DTYPE
from penstock_client import Instrument, LocalUsageError, Pace, ReconnectPolicy, SessionRefused, TickErrorReason, connect
from penstock_client.channel import checked_address
from penstock_client.ticks import checked_records
from support.tick_arrays import quotes

BTC = Instrument(1, "BTCUSDT")
ADDRESS = "unix:/run/penstock.sock"


# --- Ticks ------------------------------------------------------------------------------------------------------------


def test_arrays_and_bytes_of_ticks_are_the_same_records():
    ticks = quotes(5)
    wide = np.zeros((5, 2), TICK_DTYPE)
    wide[:, 0] = ticks
    for form in (ticks, ticks.tobytes(), bytearray(ticks.tobytes()), memoryview(ticks.tobytes()), wide[:, 0]):
        assert checked_records(form) == ticks.tobytes()
    assert checked_records(ticks[3]) == ticks[3:4].tobytes()
    assert checked_records(ticks[:0]) == b""


def test_a_whole_recording_is_not_copied():
    ticks = quotes(10_000)
    for form in (ticks, bytearray(ticks.tobytes()), memoryview(ticks.tobytes())):
        records = checked_records(form)
        assert isinstance(records, memoryview)
        assert records == ticks.tobytes()
    view = checked_records(ticks)
    ticks["ts_recv"] += np.uint64(1)
    assert view == ticks.tobytes()
    assert checked_records(ticks[::2]) == ticks[::2].tobytes()
    assert checked_records(memoryview(ticks.tobytes())[::-1][::-1]) == ticks.tobytes()


def test_a_few_ticks_are_copied():
    ticks = quotes(1)
    records = checked_records(ticks)
    ticks["ts_recv"] = 0
    assert records != ticks.tobytes()


@pytest.mark.parametrize(
    ("ticks", "sentence"),
    [
        (np.zeros(3), "dtype penstock.v1.records.TICK_DTYPE: dtype=float64"),
        (quotes(4).reshape(2, 2), r"one dimension: shape=\(2, 2\)"),
        (b"x" * 81, "80 bytes each: bytes=81, left over=1"),
        ("ticks", "must be a TICK_DTYPE array or bytes: was str"),
        (None, "was NoneType"),
        ([quotes(1)], "was list"),
    ],
)
def test_what_is_no_array_of_ticks_is_refused(ticks, sentence):
    with pytest.raises(LocalUsageError, match=sentence):
        checked_records(ticks)


@pytest.mark.parametrize(
    ("field", "value", "sentence"), [("length", 14, "20 .4-byte words"), ("rtype", 160, "1 .mbp-1")]
)
def test_a_record_that_is_not_mbp_1_is_refused_by_its_place(field, value, sentence):
    for count, place in ((7, 4), (9000, 8999)):
        ticks = quotes(count)
        ticks[field][place] = value
        with pytest.raises(LocalUsageError, match=rf"ticks\[{place}\]\.{field} must be {sentence}.*was {value}"):
            checked_records(ticks)


# --- Arguments of connect() -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address", ["unix:/run/penstock.sock", "unix:here.sock", "localhost:50051", "10.0.0.7:1", "[::1]:65535"]
)
def test_an_address_is_a_socket_or_a_host_with_a_port(address):
    assert checked_address(address) == address


def test_an_address_with_two_slashes_is_the_same_socket():
    assert checked_address("unix:///run/penstock.sock") == "unix:/run/penstock.sock"


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("unix:", "name a socket's path"),
        ("unix:/" + "x" * 107, "at most 107 characters: has 108"),
        ("localhost", "'host:port': was 'localhost'"),
        ("localhost:0", "port in 1 to 65535"),
        ("localhost:65536", "port in 1 to 65535"),
        ("/run/penstock.sock", "'unix:/path/of.sock' or"),
        ("http://localhost:80", "'host:port'"),
        ("local host:80", "'host:port'"),
        (7, "must be a string: was 7"),
    ],
)
def test_an_address_that_leads_nowhere_is_refused(address, sentence):
    with pytest.raises(LocalUsageError, match=sentence):
        connect(address, instruments=[BTC])


@pytest.mark.parametrize(
    ("instruments", "sentence"),
    [
        ([], "at least one"),
        (["BTCUSDT"], r"instruments\[0\] must be an Instrument: was str"),
        ([BTC, Instrument(-1, "X")], r"instruments\[1\]\.instrument_id must be in 0 to 4294967295: was -1"),
        ([Instrument(2**32, "X")], "instrument_id must be in"),
        ([Instrument(1.5, "X")], r"instrument_id must be an integer: was 1\.5"),
        ([Instrument(True, "X")], "instrument_id must be an integer: was True"),
        ([Instrument(1, "")], "symbol must be a string of 1 to 64 characters: was ''"),
        ([Instrument(1, "x" * 65)], "symbol must be"),
        ([Instrument(1, "X", size_scale=0)], "size_scale must be in 1"),
        ([Instrument(1, "X", dataset=None)], "dataset must be a string"),
        ([BTC, Instrument(1, "X")], "instrument_id must be unique in a session: instrument_id=1"),
        ([BTC, Instrument(2, "BTCUSDT")], r"unique by \(dataset, symbol\)"),
    ],
)
def test_instruments_that_cant_be_declared_are_refused(instruments, sentence):
    with pytest.raises(LocalUsageError, match=sentence):
        connect(ADDRESS, instruments=instruments)


def test_numpy_integers_are_integers():
    connect(ADDRESS, instruments=[Instrument(np.uint32(7), "X", size_scale=np.int64(1000))])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"pace": 3}, "pace must be Pace.REALTIME or Pace.BULK: was 3"),
        ({"client_name": "x" * 65}, "client_name must be"),
        ({"model": None}, "model must be a string"),
        ({"deadline_s": 0}, "deadline_s must be a finite number of seconds above 0: was 0"),
        ({"deadline_s": math.inf}, "deadline_s must be"),
        ({"connect_deadline_s": "1"}, "connect_deadline_s must be"),
        ({"online_readout": 1}, "online_readout must be True or False: was 1"),
        ({"reconnect": "yes"}, "reconnect must be True, False or a ReconnectPolicy: was 'yes'"),
    ],
)
def test_arguments_out_of_their_range_are_refused(arguments, sentence):
    with pytest.raises(LocalUsageError, match=sentence):
        connect(ADDRESS, instruments=[BTC], **arguments)


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        ({"initial_s": 0}, "0 < initial_s <= max_s: initial_s=0"),
        ({"initial_s": 2, "max_s": 1}, "initial_s=2, max_s=1"),
        ({"factor": 0.5}, "factor must be at least 1"),
        ({"factor": math.nan}, "factor must be at least 1"),
        ({"give_up_after_s": 0}, "give_up_after_s must be above 0"),
    ],
)
def test_a_policy_that_cant_be_followed_is_refused(policy, sentence):
    with pytest.raises(LocalUsageError, match=sentence):
        ReconnectPolicy(**policy)


# --- Errors and numbers -----------------------------------------------------------------------------------------------


def test_a_refusal_says_what_the_sentence_leaves_out_and_survives_a_pickle():
    refusal = SessionRefused("no", code="INTERNAL", reason="WHY", field="Hello.model", value="x", mend="try y")
    assert str(refusal) == "INTERNAL WHY: no (Hello.model=x); try y"
    again = pickle.loads(pickle.dumps(refusal))
    assert (str(again), again.code, again.mend) == (str(refusal), "INTERNAL", "try y")


def test_the_clients_numbers_are_those_of_the_contract():
    assert {f"PACE_{pace.name}": int(pace) for pace in Pace}.items() <= dict(pb.Pace.items()).items()
    reasons = {f"REASON_{reason.name}": int(reason) for reason in TickErrorReason}
    assert reasons == dict(pb.TickError.Reason.items())
