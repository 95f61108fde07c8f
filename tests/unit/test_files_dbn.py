"""DBN files: what is read, what is written, and what each refusal says."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from pathlib import Path

import databento_dbn as dbn
import numpy as np
import pytest

from penstock.v1.records import TICK_DTYPE
from penstock_client.files import TickFileError, open_ticks, write_dbn
from penstock_client.files.catalogue import Recording
from penstock_client.files.dbn import BYTES_MAX
from penstock_client.instruments import Instrument
from support.tick_arrays import quotes

TWO = [Instrument(1, "BTCUSDT", "TEST.VENUE"), Instrument(2, "ETHUSDT", "TEST.VENUE")]


def decoded(path: Path) -> list[object]:
    decoder = dbn.DBNDecoder(compression=dbn.Compression.ZSTD if path.suffix == ".zst" else dbn.Compression.NONE)
    return list(decoder.write_and_decode(path.read_bytes()))


@pytest.mark.parametrize("name", ["two.dbn", "two.dbn.zst"])
def test_databento_dbn_reads_what_is_written(tmp_path, name):
    ticks = quotes(50, (1, 2))
    write_dbn(tmp_path / name, ticks, TWO, "TEST.VENUE")
    metadata, *records = decoded(tmp_path / name)
    assert (metadata.version, metadata.schema, metadata.dataset) == (3, "mbp-1", "TEST.VENUE")
    assert sorted(metadata.mappings) == ["BTCUSDT", "ETHUSDT"]
    assert [record.ts_recv for record in records] == ticks["ts_recv"].tolist()
    assert [record.levels[0].ask_px for record in records] == ticks["ask_px"].tolist()
    assert b"".join(bytes(record) for record in records) == ticks.tobytes()


@pytest.mark.parametrize("name", ["two.dbn", "two.dbn.zst"])
def test_what_is_written_reads_back_to_the_byte(tmp_path, name):
    ticks = quotes(50, (1, 2))
    write_dbn(tmp_path / name, ticks, TWO, "TEST.VENUE")
    file = open_ticks(tmp_path / name)
    assert file.ticks.tobytes() == ticks.tobytes()
    assert file.instruments == TWO
    assert (file.format, file.dataset, file.keeps_order) == ("DBN v3", "TEST.VENUE", False)


def test_a_recording_of_the_daemon_keeps_its_order_and_its_full_names(tmp_path):
    write_two(tmp_path / "session.dbn")
    full = {"1": {"dataset": "A.DATASET.THAT.NO.HEADER.HOLDS", "symbol": "BTC"}, "2": {"dataset": "", "symbol": "ETH"}}
    entry = {
        "file": "session.dbn",
        "cut_short": True,
        "session_id": 7,
        "first_tick": 100,
        "rebuild_ticks": 3,
        "instruments": full,
    }
    entry |= {"gaps": [{"after_ticks": 1, "ticks": 5}, {"after_ticks": 2, "ticks": 6}], "size_scale": {"2": 10}}
    (tmp_path / "metadata.json").write_text(json.dumps({"files": [entry]}))
    file = open_ticks(tmp_path / "session.dbn")
    assert file.keeps_order
    assert file.recording == Recording(session_id=7, first_tick=100, rebuild_ticks=3, missing_ticks=11, cut_short=True)
    assert file.instruments == [
        Instrument(1, "BTC", "A.DATASET.THAT.NO.HEADER.HOLDS"),
        Instrument(2, "ETH", "", 10),
    ]


def test_a_file_without_ticks_is_a_file(tmp_path):
    write_dbn(tmp_path / "none.dbn", quotes(0), TWO, "TEST.VENUE")
    file = open_ticks(tmp_path / "none.dbn")
    assert len(file.ticks) == 0
    assert file.instruments == []


def test_a_version_2_file_of_databento_is_read(recorded_file):
    file = open_ticks(recorded_file("dbn_conformance/test_data.mbp-1.dbn"))
    assert file.format == "DBN v2"
    assert file.instruments == [Instrument(5482, "ESH1", "GLBX.MDP3")]
    assert file.ticks["sequence"].tolist() == [1170362, 1170364]
    assert file.ticks["bid_px"].tolist() == [3720250000000, 3720250000000]


@pytest.mark.parametrize("version", [1, 2, 3])
def test_every_version_gives_the_same_ticks(tmp_path, version):
    ticks = quotes(5)
    path = tmp_path / "file.dbn"
    path.write_bytes(header(version=version) + ticks.tobytes())
    file = open_ticks(path)
    assert file.format == f"DBN v{version}"
    assert file.ticks.tobytes() == ticks.tobytes()
    assert [one.symbol for one in file.instruments] == ["AAA"]


@pytest.mark.parametrize(
    ("schema", "rtype"),
    [("mbo", "0xa0"), ("trades", "0x00"), ("tbbo", "0x01"), ("mbp-10", "0x0a"), ("bbo-1s", "0xc3")],
)
def test_another_schema_is_refused_by_name_and_rtype(recorded_file, schema, rtype):
    with pytest.raises(TickFileError) as refusal:
        open_ticks(recorded_file(f"dbn_conformance/test_data.{schema}.dbn"))
    assert f"this one is {schema} with records of rtype {rtype}" in str(refusal.value)
    assert "request the schema mbp-1" in str(refusal.value)


def test_a_foreign_record_among_sound_ones_is_named(tmp_path):
    ticks = quotes(5)
    ticks["rtype"][3] = 0xA0
    path = tmp_path / "mixed.dbn"
    path.write_bytes(header() + ticks.tobytes())
    with pytest.raises(TickFileError, match=r"mixed.dbn: record 3: .*rtype 0xa0 \(mbo\)") as refusal:
        open_ticks(path)
    assert (refusal.value.record, refusal.value.field) == (3, "rtype")


def test_a_record_of_another_length_is_named(tmp_path):
    ticks = quotes(5)
    ticks["length"][4] = 19
    path = tmp_path / "short.dbn"
    path.write_bytes(header() + ticks.tobytes())
    with pytest.raises(TickFileError, match=r"record 4: an mbp-1 record is 20 words long \(length=19\)"):
        open_ticks(path)


@pytest.mark.parametrize("ts_recv", [2**64 - 1, 2**63])
def test_a_receive_time_that_orders_nothing_is_named(tmp_path, ts_recv):
    ticks = quotes(5)
    ticks["ts_recv"][2] = ts_recv
    path = tmp_path / "late.dbn"
    path.write_bytes(header() + ticks.tobytes())
    with pytest.raises(TickFileError, match=rf"record 2: .*before the year 2262 \(ts_recv={ts_recv}\)"):
        open_ticks(path)


def test_a_file_cut_inside_a_record_says_where(tmp_path):
    path = tmp_path / "cut.dbn"
    path.write_bytes(header() + quotes(5).tobytes()[:-17])
    with pytest.raises(TickFileError, match="record 4: the file ends inside a record: 63 of 80 bytes"):
        open_ticks(path)


def test_a_cut_zstd_stream_is_refused(tmp_path):
    write_dbn(tmp_path / "whole.dbn.zst", quotes(500), TWO, "TEST.VENUE")
    whole = (tmp_path / "whole.dbn.zst").read_bytes()
    (tmp_path / "cut.dbn.zst").write_bytes(whole[:-1])
    with pytest.raises(TickFileError, match="zstd stream is cut or corrupt"):
        open_ticks(tmp_path / "cut.dbn.zst")


def test_a_zstd_stream_in_two_frames_is_one_file(tmp_path):
    write_dbn(tmp_path / "a.dbn.zst", quotes(5), TWO[:1], "TEST.VENUE")
    pyarrow = pytest.importorskip("pyarrow")
    more = quotes(3, seed=1)
    packed = bytes(pyarrow.compress(more.tobytes(), codec="zstd", asbytes=True))
    with (tmp_path / "a.dbn.zst").open("ab") as file:
        file.write(packed)
    assert open_ticks(tmp_path / "a.dbn.zst").ticks.tobytes() == quotes(5).tobytes() + more.tobytes()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "it is empty"),
        (b"hello world, this is text", "it starts with 68 65 6c 6c"),
        (b"DBN", "the file ends inside its header: 3 bytes"),
        (b"DBN\x03\xff\x00\x00\x00", "the file ends inside its header: 8 of 263 bytes"),
        (b"DBN\x04\x00\x00\x00\x00", "DBN versions 1 to 3 are read (version=4)"),
        (b"DBN\x03\x00\x00\x00\x00", "its DBN header is corrupt"),
        (b"DBN\x03\x10\x00\x00\x00" + 16 * b"\xff", "its DBN header is corrupt"),
    ],
)
def test_a_foreign_or_cut_file_is_refused_with_a_sentence(tmp_path, content, sentence):
    path = tmp_path / "file.dbn"
    path.write_bytes(content)
    with pytest.raises(TickFileError) as refusal:
        open_ticks(path)
    assert sentence in str(refusal.value)
    assert str(path) in str(refusal.value)


def test_a_missing_file_and_a_folder_are_refused_with_a_sentence(tmp_path):
    with pytest.raises(TickFileError, match="No such file or directory; name a file that is there"):
        open_ticks(tmp_path / "missing.dbn")
    with pytest.raises(TickFileError, match="Is a directory"):
        open_ticks(tmp_path)


def test_records_with_a_sending_time_lose_it(tmp_path):
    ticks = quotes(4)
    sent = np.zeros(4, dtype=[("tick", TICK_DTYPE), ("ts_out", "<u8")])
    sent["tick"] = ticks
    sent["tick"]["length"] = 22
    path = tmp_path / "live.dbn"
    path.write_bytes(header(ts_out=True) + sent.tobytes())
    assert open_ticks(path).ticks.tobytes() == ticks.tobytes()


def test_size_scales_come_from_the_metadata_beside_the_file(tmp_path):
    (tmp_path / "metadata.json").write_text(
        json.dumps({"files": [{"file": "a*.dbn", "size_scale": {"1": 1000}}, {"file": "b.dbn", "size_scale": 7}]})
    )
    for name, scales in (("a1.dbn", [1000, 1]), ("b.dbn", [7, 7]), ("c.dbn", [1, 1])):
        shutil.copy(write_two(tmp_path.parent / "two.dbn"), tmp_path / name)
        assert [one.size_scale for one in open_ticks(tmp_path / name).instruments] == scales


def test_size_scales_are_noted_beside_what_is_written(tmp_path):
    scaled = [Instrument(1, "BTCUSDT", "TEST.VENUE", 1000), Instrument(2, "ETHUSDT", "TEST.VENUE")]
    (tmp_path / "metadata.json").write_text('{"note": "mine", "files": [{"file": "other.dbn", "size_scale": 5}]}')
    write_dbn(tmp_path / "a.dbn", quotes(4, (1, 2)), scaled, "TEST.VENUE")
    assert open_ticks(tmp_path / "a.dbn").instruments == scaled
    noted = json.loads((tmp_path / "metadata.json").read_text())
    assert noted["note"] == "mine"
    assert [entry["file"] for entry in noted["files"]] == ["other.dbn", "a.dbn"]
    write_dbn(tmp_path / "a.dbn", quotes(4, (1, 2)), TWO, "TEST.VENUE")
    assert open_ticks(tmp_path / "a.dbn").instruments == TWO


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"files": 3}',
        '{"files": [{"file": "a.dbn", "session_id": null}]}',
        '{"files": [{"file": "a.dbn", "size_scale": {"x": 1}}]}',
    ]
    + [f'{{"files": [{{"file": "a.dbn", "size_scale": {{"1": {scale}}}}}]}}' for scale in ("0", "1.5", '"9"', "true")],
)
def test_a_broken_metadata_file_is_refused_by_name(tmp_path, content):
    write_two(tmp_path / "a.dbn")
    (tmp_path / "metadata.json").write_text(content)
    with pytest.raises(TickFileError, match=r"metadata\.json: "):
        open_ticks(tmp_path / "a.dbn")


def test_an_id_without_a_mapping_is_named_by_its_number(tmp_path):
    path = tmp_path / "file.dbn"
    path.write_bytes(header() + quotes(4, (1, 77)).tobytes())
    assert [(one.instrument_id, one.symbol) for one in open_ticks(path).instruments] == [(1, "AAA"), (77, "77")]


def test_an_id_that_changes_its_symbol_by_day_becomes_two_instruments(tmp_path):
    ticks = quotes(4)
    day = 86_400 * 10**9
    ticks["ts_recv"] = np.arange(4, dtype=np.uint64) * np.uint64(day)
    path = tmp_path / "rolled.dbn"
    path.write_bytes(header({"OLD": [(0, 2, 1)], "NEW": [(2, 4, 1)]}) + ticks.tobytes())
    file = open_ticks(path)
    assert [(one.instrument_id, one.symbol) for one in file.instruments] == [(1, "OLD"), (2, "NEW")]
    assert file.ticks["instrument_id"].tolist() == [1, 1, 2, 2]


def test_a_symbol_that_changes_its_id_by_day_stays_one_instrument(tmp_path):
    ticks = quotes(4, (9, 9, 4, 4))
    ticks["ts_recv"] = np.arange(4, dtype=np.uint64) * np.uint64(86_400 * 10**9)
    path = tmp_path / "moved.dbn"
    path.write_bytes(header({"ONE": [(0, 2, 9), (2, 4, 4)]}) + ticks.tobytes())
    file = open_ticks(path)
    assert [(one.instrument_id, one.symbol) for one in file.instruments] == [(9, "ONE")]
    assert file.ticks["instrument_id"].tolist() == [9, 9, 9, 9]


@pytest.mark.parametrize(
    ("instruments", "dataset", "sentence"),
    [
        (TWO[:1], "TEST.VENUE", r"a tick has no instrument \(instrument_id=2\)"),
        ([*TWO, Instrument(3, "ETHUSDT", "OTHER")], "TEST.VENUE", "each symbol and each id stands once"),
        (TWO, "A DATASET THAT IS TOO LONG", "no DBN header holds this"),
    ],
)
def test_what_no_dbn_file_can_hold_is_refused_before_writing(tmp_path, instruments, dataset, sentence):
    with pytest.raises(TickFileError, match=sentence):
        write_dbn(tmp_path / "no.dbn", quotes(4, (1, 2)), instruments, dataset)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_refused_when_writing(tmp_path):
    with pytest.raises(TickFileError, match="can't be written"):
        write_dbn(tmp_path / "missing" / "a.dbn", quotes(1), TWO, "TEST.VENUE")


def test_a_file_that_unpacks_without_end_is_refused(tmp_path, monkeypatch):
    write_dbn(tmp_path / "big.dbn.zst", quotes(500), TWO, "TEST.VENUE")
    monkeypatch.setattr("penstock_client.files.dbn.BYTES_MAX", 1000)
    with pytest.raises(TickFileError, match="more than 1000 bytes of memory; split the file"):
        open_ticks(tmp_path / "big.dbn.zst")
    assert BYTES_MAX > 2**30


@pytest.mark.recorded
@pytest.mark.parametrize(
    ("name", "rows", "scales"),
    [
        ("binance_usdm_20240808", 155_470, [1000, 1000]),
        ("binance_spot_btcusdt_20240808", 37_797, [100_000]),
        ("fxcm_eurusd_20140508", 167_466, [1]),
    ],
)
def test_the_recorded_files_are_read_whole(recorded_file, name, rows, scales):
    file = open_ticks(recorded_file(f"{name}.mbp-1.dbn.zst"))
    assert len(file.ticks) == rows
    assert [one.size_scale for one in file.instruments] == scales


def write_two(path: Path) -> Path:
    write_dbn(path, quotes(4, (1, 2)), TWO, "TEST.VENUE")
    return path


def header(
    mappings: dict[str, list[tuple[int, int, int]]] | None = None, *, version: int = 3, ts_out: bool = False
) -> bytes:
    """Build a header; *mappings* is symbol to (first day, end day, id), days since 1970."""

    class Interval:
        def __init__(self, start: int, end: int, one: int) -> None:
            self.start_date = dt.date(1970, 1, 1) + dt.timedelta(days=start)
            self.end_date = dt.date(1970, 1, 1) + dt.timedelta(days=end)
            self.symbol = str(one)

    class Mapping:
        def __init__(self, symbol: str, intervals: list[tuple[int, int, int]]) -> None:
            self.raw_symbol = symbol
            self.intervals = [Interval(*one) for one in intervals]

    mappings = mappings or {"AAA": [(0, 30_000, 1)]}
    metadata = dbn.Metadata(
        dataset="TEST.VENUE",
        start=0,
        stype_in=dbn.SType.RAW_SYMBOL,
        stype_out=dbn.SType.INSTRUMENT_ID,
        schema=dbn.Schema.MBP_1,
        symbols=list(mappings),
        mappings=[Mapping(symbol, intervals) for symbol, intervals in mappings.items()],
        ts_out=ts_out,
        version=version,
    )
    return bytes(metadata.encode())
