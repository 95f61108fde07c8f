"""The command line: what it says, what it refuses and with which exit code, without a daemon."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from penstock_client.cli import main
from penstock_client.files import open_ticks, write_ticks
from penstock_client.instruments import Instrument
from support.itch_files import write_itch
from support.itch_orders import add, delete, directory, start_of_messages, trade
from support.tick_arrays import quotes

TWO = [Instrument(1, "BTCUSDT", "TEST.VENUE", 1000), Instrument(2, "ETHUSDT", "TEST.VENUE")]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "day.dbn.zst"
    write_ticks(path, quotes(100, (1, 2)), TWO)
    return str(path)


@pytest.mark.parametrize(
    "command",
    [
        "",
        "replay",
        "inspect",
        "convert",
        "health",
        "latency",
        "top",
        "models",
        "models load",
        "feed",
        "subscribe",
        "completion",
    ],
)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([*command.split(), "--help"])
    assert end.value.code == 0
    assert "usage: penstock" in capsys.readouterr().out


def test_help_loads_neither_numpy_nor_grpc():
    code = "import sys; from penstock_client.cli import build_parser; build_parser(); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "grpc", "pyarrow", "matplotlib", "rich", "databento_dbn", "asyncio"} & set(modules)


def test_inspect_tells_what_a_file_holds(file, capsys):
    assert main(["inspect", file]) == 0
    text = capsys.readouterr().out
    assert "100, of them 0 trades" in text
    assert "1  TEST.VENUE:BTCUSDT  50 ticks, size scale 1,000" in text
    assert main(["inspect", file, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["ticks"] == 100
    assert found["format"] == "DBN v3"
    assert found["recording"] is None


def test_inspect_tells_what_an_itch_file_holds(file, tmp_path, capsys):
    orders = [add("AAPL", number, "B", 1, 1_000_000) for number in range(3)]
    forged = add("B", 9, "S", 1, 1_000_000).replace(b"B       ", b"\x1b[31m\xff  ")
    messages = [directory("LONGNAME"), *orders, trade("B", 1, 1_000_000), delete("AAPL", 1), forged]
    itch = str(write_itch(tmp_path / "day.NASDAQ_ITCH50.gz", [start_of_messages(), *messages], lengths=False))
    assert main(["inspect", file, itch]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "messages     8" in lines
    assert "type         A  4 add" in lines
    assert "stock        AAPL      3 orders, 0 trades" in lines
    assert (
        "time         09:30:00.000000123 to 09:30:00.000000123 of a day that the file does not name, 0.000 s" in lines
    )
    assert not any("\x1b" in line for line in lines), "what a file holds does not speak to the terminal"
    assert main(["inspect", itch, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["types"] == {"A": 4, "D": 1, "P": 1, "R": 1, "S": 1}
    assert found["stocks"][0] == {"symbol": "AAPL", "orders": 3, "trades": 0}
    assert [one["symbol"] for one in found["stocks"][1:]] == ["B", "\\x1b[31m\\xff", "LONGNAME"]


@pytest.mark.recorded
def test_inspect_finds_what_is_odd_in_a_recorded_file(recorded_file, capsys):
    assert main(["inspect", "--json", str(recorded_file("fxcm_eurusd_20140508.mbp-1.dbn.zst"))]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["odd"]["crossed_books"] == 18_285
    assert found["odd"]["books_without_sizes"] == found["ticks"] == 167_466
    assert main(["inspect", "--json", str(recorded_file("binance_usdm_20240808.mbp-1.dbn.zst"))]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["odd"]["ts_event_backwards"] == 3_803
    assert found["trades"] == 35_389


def test_convert_writes_the_same_ticks_in_another_format(file, tmp_path, capsys):
    assert main(["convert", file, str(tmp_path / "day.csv")]) == 0
    assert main(["convert", str(tmp_path / "day.csv"), str(tmp_path / "again.dbn")]) == 0
    assert "wrote 100 ticks of 2 instruments" in capsys.readouterr().out
    assert open_ticks(tmp_path / "again.dbn").ticks.tobytes() == open_ticks(file).ticks.tobytes()
    assert open_ticks(tmp_path / "again.dbn").instruments == TWO


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("replay missing.dbn", "missing.dbn: can't be read: No such file or directory"),
        ("replay {file} --speed 0", "speed must be a number above 0, or max"),
        ("replay {file} --seconds 0", "--seconds must be a number of seconds above 0"),
        ("replay {file} --timeout nan", "--timeout must be a number of seconds above 0"),
        ("replay {file} --skip -1", "--skip must be a number of seconds, 0 or more"),
        ("replay {file} --skip 99999", "nothing is left to replay"),
        ("replay {file} --batch-splits -1", "--batch-splits must be 0 or more"),
        ("replay {file} --instruments DOGE", "no instrument has this name: 'DOGE'; take from TEST.VENUE:BTCUSDT"),
        ("replay {file} --out x.txt", "--out must end in one of"),
        ("replay {file} --raw x.txt", "--raw must end in .npy"),
        ("replay {file} --report x.pdf", "--report must end in one of"),
        ("replay {file} --columns nonsense", "neither a preset, a .toml file nor FIELD=COLUMN pairs"),
        ("replay {file} --to nowhere", "address must be 'unix:/path/of.sock' or 'host:port'"),
        ("replay {file} --dataset A --dataset B", "--dataset must be given once, or once for each of 1 files"),
        ("inspect {file} missing.csv", "missing.csv: can't be read"),
        ("convert {file} out.txt", "the name says no format that is written"),
        ("health --to nowhere", "address must be"),
    ],
)
def test_bad_input_is_a_sentence_and_exit_code_2(file, capsys, arguments, sentence):
    assert main(arguments.format(file=file).split()) == 2
    output = capsys.readouterr()
    assert sentence in output.err
    assert output.err.startswith("penstock: ")
    assert "Traceback" not in output.err
    assert output.out == ""


@pytest.mark.parametrize(
    "command", ["replay {file} --timeout 0.3", "health --timeout 0.3", "models list --timeout 0.3"]
)
def test_no_daemon_is_a_sentence_and_exit_code_3(file, tmp_path, capsys, command):
    assert main([*command.format(file=file).split(), "--to", f"unix:{tmp_path}/none.sock"]) == 3
    error = capsys.readouterr().err
    assert "no daemon" in error
    assert "start penstockd" in error


@pytest.mark.parametrize("arguments", ["", "no-such-command", "replay", "replay --speed", "models", "completion fish"])
def test_bad_usage_is_exit_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments.split())
    assert end.value.code == 2
    assert "usage: penstock" in capsys.readouterr().err


def test_a_fault_of_our_own_is_a_sentence_unless_its_traceback_is_asked_for(file, monkeypatch, capsys):
    monkeypatch.setattr("penstock_client.file_commands.describe", lambda _file: 1 // 0)
    assert main(["inspect", file]) == 70
    assert "a fault of penstock's own: ZeroDivisionError" in capsys.readouterr().err
    monkeypatch.setenv("PENSTOCK_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        main(["inspect", file])


def test_a_missing_extra_names_what_to_install(file, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main(["inspect", file]) == 2
    assert "pip install 'penstock[files]'" in capsys.readouterr().err


def test_a_reader_who_leaves_is_no_fault(file):
    command = f"{sys.executable} -m penstock_client.cli inspect {file} {file} {file} --json | true"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_version_names_the_machine_too(capsys):
    assert main(["version"]) == 0
    assert "cores" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("penstock re", ["replay"]),
        ("penstock replay --start", ["--start-busiest"]),
        ("penstock models de", ["describe"]),
        ("penstock models activate --open", ["--open-sessions"]),
        ("penstock completion ", ["bash", "zsh"]),
        ("penstock-train sim", ["simulate"]),
        ("penstock-bench shm --tr", ["--trips"]),
        ("penstockd --pr", ["--print-config"]),
        ("penstockd --check --set engine.id", ["engine.idle="]),
    ],
)
def test_bash_completes_commands_and_flags(line, offered):
    words = line.split(" ")
    asked = {
        "penstock": "penstock_client.cli completion bash",
        "penstock-train": "penstock_tuning.model.cli completion bash",
        "penstock-bench": "penstock_tuning.bench.cli completion bash",
        "penstockd": "penstock_daemon.main --completion",
    }[words[0]]
    function = f"_{words[0].replace('-', '_')}"
    script = (
        f'eval "$({sys.executable} -m {asked})"; COMP_WORDS=({" ".join(words)}); COMP_CWORD={len(words) - 1}; '
        f"{function}; printf '%s\\n' \"${{COMPREPLY[@]}}\"; complete -p {words[0]} >&2"
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert f" -F {function} {words[0]}\n" in done.stderr
    assert set(offered) <= set(done.stdout.split())
    if words[-1]:
        assert done.stdout.split() == offered
