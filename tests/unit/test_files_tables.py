"""CSV and Parquet files: mappings, units, what is missing, and what each refusal says."""

from __future__ import annotations

import gzip
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from penstock.v1.records import UNDEFINED_PRICE, UNDEFINED_TIME
from penstock_client.files import TickFile, TickFileError, open_ticks, read_mapping, write_ticks
from penstock_client.instruments import Instrument
from support.tick_arrays import quotes

TWO = [Instrument(1, "BTCUSDT", "A", 1000), Instrument(2, "BTCUSDT", "B", 5)]


def csv_file(folder: Path, text: str, columns: str = "penstock", name: str = "file.csv") -> TickFile:
    (folder / name).write_text(text)
    return open_ticks(folder / name, columns)


def parquet_file(folder: Path, columns: str = "penstock", **arrays: object) -> TickFile:
    parquet.write_table(pa.table(arrays), folder / "file.parquet")
    return open_ticks(folder / "file.parquet", columns)


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.csv.zst", "a.parquet"])
def test_what_is_written_reads_back_to_the_byte(tmp_path, name):
    ticks = quotes(50, (1, 2))
    ticks["action"][3], ticks["side"][3], ticks["price"][3] = 0, 200, -5
    ticks["ts_event"][4] = UNDEFINED_TIME
    write_ticks(tmp_path / name, ticks, TWO)
    file = open_ticks(tmp_path / name)
    assert file.ticks.tobytes() == ticks.tobytes()
    assert file.instruments == TWO


def test_a_csv_of_three_columns_is_enough(tmp_path):
    ticks = csv_file(tmp_path, "ts_recv,bid_px,ask_px\n5,100,\n6,,101\n").ticks
    assert ticks["bid_px"].tolist() == [100, UNDEFINED_PRICE]
    assert ticks["ask_px"].tolist() == [UNDEFINED_PRICE, 101]
    assert ticks["ts_event"].tolist() == [UNDEFINED_TIME] * 2
    assert [chr(one) for one in ticks["action"]] == ["M", "M"]
    assert [chr(one) for one in ticks["side"]] == ["N", "N"]
    assert ticks["flags"].tolist() == [128, 128]
    assert ticks["instrument_id"].tolist() == [1, 1]


def test_a_price_with_a_size_makes_a_trade(tmp_path):
    text = "ts_recv,bid_px,ask_px,price,size\n5,1,2,1,7\n5,1,2,,7\n5,1,2,1,0\n"
    assert bytes(csv_file(tmp_path, text).ticks["action"]) == b"TMM"


def test_a_symbol_is_taken_from_the_files_name_where_nothing_tells_one(tmp_path):
    file = csv_file(tmp_path, "ts_recv,bid_px,ask_px\n5,1,2\n", name="EURUSD.2014.csv")
    assert file.instruments == [Instrument(1, "EURUSD")]


def test_pairs_map_names_and_units_exactly(tmp_path):
    columns = (
        "ts_recv=time,time_unit=ms,bid_px=bid,ask_px=ask,price_unit=decimal,bid_sz=q,size_unit=decimal,size_scale=1000"
    )
    text = "ask,time,bid,q,what\n0.1,1723161256361.567735,61800.123456789,0.021,x\nNaN,7,-0.000000001,4294967.295,y\n"
    file = csv_file(tmp_path, text, columns)
    assert file.ticks["ask_px"].tolist() == [100_000_000, UNDEFINED_PRICE]
    assert file.ticks["bid_px"].tolist() == [61_800_123_456_789, -1]
    assert file.ticks["ts_recv"].tolist() == [1_723_161_256_361_567_735, 7_000_000]
    assert file.ticks["bid_sz"].tolist() == [21, 2**32 - 1]
    assert file.instruments[0].size_scale == 1000


def test_a_toml_mapping_says_the_same(tmp_path):
    mapping = tmp_path / "mapping.toml"
    mapping.write_text(
        'price_unit = "decimal"\ntime_unit = "iso8601"\nsymbol = "X"\ndataset = "D"\nsize_scale = 3\n'
        '[columns]\nts_recv = "t"\nbid_px = "b"\nask_px = "a"\n'
    )
    file = csv_file(tmp_path, "t,b,a\n1970-01-01T00:00:01.000000002Z,1,2.5\n", str(mapping))
    assert file.instruments == [Instrument(1, "X", "D", 3)]
    assert file.ticks[["ts_recv", "bid_px", "ask_px"]].tolist() == [(1_000_000_002, 10**9, 2_500_000_000)]


def test_a_csv_of_databento_is_read_by_its_preset(tmp_path):
    text = (
        "ts_recv,ts_event,rtype,publisher_id,instrument_id,action,side,depth,price,size,flags,ts_in_delta,sequence,"
        "bid_px_00,ask_px_00,bid_sz_00,ask_sz_00,bid_ct_00,ask_ct_00,symbol\n"
        "2020-12-28T13:00:00.006136013Z,2020-12-28T13:00:00.006001487Z,1,1,5482,A,A,0,3720.500000000,1,128,17214,"
        "1170362,3720.250000000,3720.500000000,24,11,15,9,ESH1\n"
    )
    file = csv_file(tmp_path, text, "databento")
    assert file.instruments == [Instrument(5482, "ESH1")]
    tick = file.ticks[0]
    assert (tick["ts_recv"], tick["ts_event"]) == (1609160400006136013, 1609160400006001487)
    assert (tick["bid_px"], tick["ask_ct"], chr(tick["action"])) == (3720250000000, 9, "A")


def test_times_without_a_zone_are_utc_and_others_are_converted(tmp_path):
    for text in ("1970-01-01 00:00:02", "1970-01-01T01:00:02+01:00"):
        file = csv_file(tmp_path, f"ts_recv,bid_px,ask_px\n{text},1,2\n", "time_unit=iso8601")
        assert file.ticks["ts_recv"].tolist() == [2 * 10**9]


def test_instruments_are_told_by_dataset_and_symbol(tmp_path):
    text = "ts_recv,bid_px,ask_px,symbol,dataset\n5,1,2,B,X\n5,1,2,A,X\n5,1,2,B,\n5,1,2,B,X\n"
    file = csv_file(tmp_path, text)
    assert file.ticks["instrument_id"].tolist() == [1, 2, 3, 1]
    assert file.instruments == [Instrument(1, "B", "X"), Instrument(2, "A", "X"), Instrument(3, "B", "")]


def test_ids_without_symbols_are_named_by_their_numbers(tmp_path):
    file = csv_file(tmp_path, "ts_recv,bid_px,ask_px,instrument_id\n5,1,2,9\n5,1,2,4\n")
    assert file.instruments == [Instrument(4, "4"), Instrument(9, "9")]


def test_a_symbol_that_looks_like_nothing_is_a_symbol(tmp_path):
    assert csv_file(tmp_path, "ts_recv,bid_px,ask_px,symbol\n5,1,2,NaN\n").instruments == [Instrument(1, "NaN")]


def test_parquets_own_types_need_no_unit(tmp_path):
    file = parquet_file(
        tmp_path,
        ts_recv=pa.array([1000], pa.timestamp("ms")),
        bid_px=pa.array([Decimal("1.5")], pa.decimal128(10, 2)),
        ask_px=pa.array([1.1], pa.float64()),
        symbol=pa.array(["X"]).dictionary_encode(),
        columns="price_unit=decimal",
    )
    assert file.ticks[["ts_recv", "bid_px", "ask_px"]].tolist() == [(10**9, 1_500_000_000, 1_100_000_000)]
    assert file.instruments == [Instrument(1, "X")]


def test_floats_become_the_nearest_price(tmp_path):
    wanted = np.array([61800.1, 0.1, 1.39147, 2.0**-31, -3.3])
    many = pa.array([1] * 5)
    file = parquet_file(tmp_path, ts_recv=many, bid_px=pa.array(wanted), ask_px=many, columns="price_unit=decimal")
    assert file.ticks["bid_px"].tolist() == [round(Decimal(one) * 10**9) for one in wanted.tolist()]
    assert file.ticks["ask_px"].tolist() == [10**9] * 5


@pytest.mark.parametrize(
    ("text", "columns", "sentence"),
    [
        ("", "penstock", "this CSV can't be read: Empty CSV file"),
        ("ts_recv,bid_px\n5,1\n", "penstock", "no column tells ask_px; there are ts_recv, bid_px (ask_px); name it"),
        ("ts_recv,bid_px,ask_px\n5,1\n", "penstock", "Expected 3 columns, got 2"),
        ("ts_recv,bid_px,ask_px,bid_px\n5,1,2,3\n", "penstock", "several columns have this name (bid_px='bid_px')"),
        ("ts_recv,bid_px,ask_px\n5,1,2\n", "ask_px=offer", "there is no such column (ask_px='offer')"),
        ("ts_recv,bid_px,ask_px\n5,1,2\n6,1,1.5\n", "penstock", "record 1: this value does not fit (ask_px='1.5')"),
        ("ts_recv,bid_px,ask_px\n5,1,1.5\n", "penstock", 'say price_unit = "decimal"'),
        ("ts_recv,bid_px,ask_px\n5,x,2\n", "price_unit=decimal", "record 0: this value does not fit (bid_px='x')"),
        ("ts_recv,bid_px,ask_px\n5,1.0000000001,2\n", "price_unit=decimal", "at most 9 decimal places"),
        ("ts_recv,bid_px,ask_px\n5,9223372036.9,2\n", "price_unit=decimal", "below 9.2e9"),
        ("ts_recv,bid_px,ask_px\n2024-08-08T00:00:00Z,1,2\n", "penstock", 'say time_unit = "iso8601" for dates'),
        ("ts_recv,bid_px,ask_px\n5,1,2\n", "time_unit=iso8601", 'say time_unit = "ns" for nanoseconds'),
        ("ts_recv,bid_px,ask_px\n-5,1,2\n", "penstock", "record 0: this value does not fit (ts_recv='-5')"),
        ("ts_recv,bid_px,ask_px\n-5,1,2\n", "time_unit=s", "record 0: this value does not fit (ts_recv='-5')"),
        ("ts_recv,bid_px,ask_px\n,1,2\n", "penstock", "must be defined and before the year 2262"),
        ("ts_recv,bid_px,ask_px,size\n5,1,2,-1\n", "penstock", "(size='-1'); whole numbers below 2**32"),
        ("ts_recv,bid_px,ask_px,size\n5,1,2,0.5\n", "size_unit=decimal", "choose another size_scale than 1"),
        ("ts_recv,bid_px,ask_px,size\n5,1,2,4294967296\n", "size_unit=decimal", "below 2**32"),
        (
            "ts_recv,bid_px,ask_px,size\n5,1,2,-1\n",
            "size_unit=decimal",
            "record 0: this value does not fit (size='-1')",
        ),
        (
            "ts_recv,bid_px,ask_px,action\n5,1,2,T\n5,1,2,Trade\n",
            "penstock",
            "record 1: this value does not fit (action=",
        ),
        ("ts_recv,bid_px,ask_px,flags\n5,1,2,256\n", "penstock", "a whole number from 0 to 255 is wanted"),
        ("ts_recv,bid_px,ask_px,symbol\n5,1,2,A\n5,1,2,\n", "penstock", "record 1: a session takes 1 to 64 characters"),
        ("ts_recv,bid_px,ask_px,symbol\n5,1,2," + 65 * "A" + "\n", "penstock", "a session takes 1 to 64 characters"),
        (
            "ts_recv,bid_px,ask_px,symbol,instrument_id\n5,1,2,A,1\n5,1,2,B,1\n",
            "penstock",
            "record 1: one instrument_id stands for two symbols (instrument_id=1)",
        ),
        (
            "ts_recv,bid_px,ask_px,symbol,instrument_id\n5,1,2,A,1\n5,1,2,A,2\n",
            "penstock",
            "record 1: one symbol has two instrument_ids (instrument_id=2)",
        ),
    ],
)
def test_a_csv_that_does_not_fit_is_refused_with_a_sentence(tmp_path, text, columns, sentence):
    with pytest.raises(TickFileError) as refusal:
        csv_file(tmp_path, text, columns)
    assert sentence in str(refusal.value)
    assert "file.csv" in str(refusal.value)


def test_the_first_of_many_bad_values_is_named(tmp_path):
    rows = ["5,1,2"] * 1000
    for bad in (619, 640, 999):
        rows[bad] = "5,1,two"
    with pytest.raises(TickFileError, match="record 619: this value does not fit \\(ask_px='two'\\)"):
        csv_file(tmp_path, "\n".join(["ts_recv,bid_px,ask_px", *rows]))


@pytest.mark.parametrize(
    ("arrays", "columns", "sentence"),
    [
        ({"ask_px": pa.array([1.5], pa.float32())}, "price_unit=decimal", "float32 and float16 hold no prices"),
        ({"ask_px": pa.array([1.5])}, "penstock", 'say price_unit = "decimal"'),
        ({"ask_px": pa.array([float("inf")])}, "price_unit=decimal", "below 9.2e9"),
        ({"ask_px": pa.array([[1]])}, "penstock", "this value does not fit"),
        ({"ask_px": pa.array([True])}, "penstock", "this value does not fit"),
        ({"ts_recv": pa.array([5])}, "time_unit=iso8601", "the column holds numbers"),
        ({"symbol": pa.array([b"\xff"])}, "penstock", "a text is wanted"),
    ],
)
def test_a_parquet_file_that_does_not_fit_is_refused_with_a_sentence(tmp_path, arrays, columns, sentence):
    arrays = {"ts_recv": pa.array([5]), "bid_px": pa.array([1]), "ask_px": pa.array([2])} | arrays
    with pytest.raises(TickFileError) as refusal:
        parquet_file(tmp_path, columns, **arrays)
    assert sentence in str(refusal.value)


def test_a_file_of_no_rows_is_a_file(tmp_path):
    file = csv_file(tmp_path, "ts_recv,bid_px,ask_px,symbol\n")
    assert (len(file.ticks), file.instruments) == (0, [])
    none = pa.array([], pa.float32())
    assert len(parquet_file(tmp_path, ts_recv=none, bid_px=none, ask_px=none).ticks) == 0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("ohlc", "neither a preset, a .toml file nor FIELD=COLUMN pairs"),
        ("bid_px=", "neither a preset"),
        ("bit_px=b", "there is no such setting (bit_px='b')"),
        ("time_unit=hours", "this unit is not known (time_unit='hours'); take one of ns, us"),
        ("size_scale=0", "a size scale is a whole number, at least 1"),
        ("size_scale=many", "a size scale is a whole number, at least 1"),
        ("missing.toml", "missing.toml: this column mapping can't be read: No such file or directory"),
    ],
)
def test_a_mapping_that_says_nothing_is_refused_with_a_sentence(text, sentence):
    with pytest.raises(TickFileError) as refusal:
        read_mapping(text)
    assert sentence in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("= 3", "can't be read"),
        ("columns = 3", "columns is a table"),
        ("[columns]\nbid = 'b'", "a tick has no such field"),
        ("[columns]\nbid_px = 3", "a column is named by its text"),
        ("size_scale = true", "a size scale is a whole number"),
        ("symbol = 3", "this is a text of at most 64 characters"),
        ("\xff", "can't be read"),
    ],
)
def test_a_toml_mapping_that_says_nothing_is_refused_with_a_sentence(tmp_path, text, sentence):
    path = tmp_path / "mapping.toml"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(TickFileError) as refusal:
        read_mapping(str(path))
    assert sentence in str(refusal.value)
    assert "mapping.toml" in str(refusal.value)


def test_a_csv_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "bad.csv").write_bytes(b"ts_recv,bid_px,ask_px\n\xff\xfe,1,2\n")
    with pytest.raises(TickFileError, match="UTF8"):
        open_ticks(tmp_path / "bad.csv")
    (tmp_path / "bad.csv.gz").write_bytes(gzip.compress(b"ts_recv,bid_px,ask_px\n5,1,2\n")[:-9])
    with pytest.raises(TickFileError, match="can't be read"):
        open_ticks(tmp_path / "bad.csv.gz")


def test_a_name_that_says_no_format_is_refused_when_writing(tmp_path):
    with pytest.raises(TickFileError, match=r"end it in one of \.dbn, "):
        write_ticks(tmp_path / "a.txt", quotes(1), TWO)
    with pytest.raises(TickFileError, match="a DBN file has one dataset"):
        write_ticks(tmp_path / "a.dbn", quotes(1), TWO)
    assert list(tmp_path.iterdir()) == []
