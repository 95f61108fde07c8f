"""Configuration: where values come from, what is refused, and what each refusal says."""

from __future__ import annotations

import dataclasses
import math
import os
import subprocess
import sys
import tomllib

import pytest

from penstock_daemon.config import Config, ConfigError, load_config, render_toml
from penstock_daemon.config_fields import keys, section_types
from penstock_daemon.config_limits import cpu_ranges, forgetting_least, parse_cpu_ranges
from penstock_kernels.features import FEATURES
from penstock_kernels.online_layout import regressors
from penstock_kernels.online_rls import OnlineError, check_forgetting

CPUS = frozenset({0, 1, 2, 3})


def load(*sets: str, toml: str | None = None, environ: dict[str, str] | None = None, tmp_path=None) -> Config:
    path = None
    if toml is not None:
        path = tmp_path / "penstock.toml"
        path.write_text(toml, encoding="utf-8")
    return load_config(path, environ or {}, sets, cpus=CPUS)


def faults(*sets: str, toml: str | None = None, environ: dict[str, str] | None = None, tmp_path=None) -> list[str]:
    with pytest.raises(ConfigError) as refusal:
        load(*sets, toml=toml, environ=environ, tmp_path=tmp_path)
    return list(refusal.value.faults)


def test_no_source_gives_the_defaults():
    assert load() == Config.defaults()


def test_configuration_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config.defaults().engine.batch_max = 1


def test_every_default_is_within_its_own_limits():
    load_config(None, {}, [f"{key.path}={key.default}" for key in keys() if key.kind in (int, float)], cpus=CPUS)


def test_every_key_has_advice_that_is_a_sentence():
    assert all(key.advice.endswith(".") for key in keys())


def test_set_wins_over_environment_over_file_over_default(tmp_path):
    toml = "[engine]\nbatch_max = 10\nspin_us = 10\nidle = 'spin'\n"
    environ = {"PENSTOCK_ENGINE__BATCH_MAX": "20", "PENSTOCK_ENGINE__SPIN_US": "20"}
    engine = load("engine.batch_max=30", toml=toml, environ=environ, tmp_path=tmp_path).engine
    assert (engine.batch_max, engine.spin_us, engine.idle, engine.device) == (30, 20, "spin", "auto")


def test_last_set_of_a_key_wins():
    assert load("engine.spin_us=5", "engine.spin_us=6").engine.spin_us == 6


@pytest.mark.parametrize(
    ("setting", "section", "name", "value"),
    [
        ("server.address=127.0.0.1:50051", "server", "address", "127.0.0.1:50051"),
        ("server.cores=0-2", "server", "cores", (0, 1, 2)),
        ("engine.cores=[2, 3]", "engine", "cores", (2, 3)),
        ("engine.cores=", "engine", "cores", ()),
        ("engine.pin=false", "engine", "pin", False),
        ("server.drain_s=0.5", "server", "drain_s", 0.5),
        ("server.drain_s=2", "server", "drain_s", 2.0),
        ("server.message_bytes_max=8_388_608", "server", "message_bytes_max", 8_388_608),
        ("metrics.address=", "metrics", "address", ""),
        ("models.active=a=b", "models", "active", "a=b"),
    ],
)
def test_text_becomes_the_type_of_its_key(setting, section, name, value):
    found = getattr(getattr(load(setting), section), name)
    assert found == value
    assert type(found) is type(value)


def test_all_faults_of_all_sources_are_reported_together(tmp_path):
    found = faults(
        "engine.cores=9",
        "nonsense",
        toml="[engine]\nbatch_max = 0\ncoers = [1]\n[serve]\naddress = 'x'\n",
        environ={"PENSTOCK_SESSIONS__MAX": "many"},
        tmp_path=tmp_path,
    )
    assert len(found) == 6
    text = "\n".join(found)
    assert "engine.cores: must be online (this host has 0-3), was 9 (in --set)" in found
    assert "sessions.max: must be a whole number, was many (in PENSTOCK_SESSIONS__MAX)" in found
    assert "engine.batch_max: must be 1 to 4096, was 0 (in " in text
    assert "engine.coers: unknown key; did you mean engine.cores? (in " in text
    assert "serve: unknown section; did you mean server? (in " in text
    assert "--set 'nonsense': must be key=value, such as engine.idle=spin" in found


def test_error_of_several_faults_counts_them_and_lists_one_per_line():
    with pytest.raises(ConfigError, match=r"^the configuration has 2 faults:\n  engine\.spin_us: .*\n  engine\.batch"):
        load("engine.spin_us=0", "engine.batch_max=0")


@pytest.mark.parametrize(
    ("toml", "sentence"),
    [
        ("engine = 3", "engine: must be a table, written [engine], was 3"),
        ("[engine]\nbatch_max = 1.0", "engine.batch_max: must be a whole number, was 1.0"),
        ("[engine]\nbatch_max = true", "engine.batch_max: must be a whole number, was true"),
        ("[engine]\nbatch_max = '64'", "engine.batch_max: must be a whole number, was '64'"),
        ("[engine]\npin = 1", "engine.pin: must be true or false, was 1"),
        ("[engine]\ncores = '1'", "engine.cores: must be a list of CPU numbers, such as [2, 3], was '1'"),
        ("[engine]\ncores = [1, true]", "engine.cores: must be a list of CPU numbers, such as [2, 3], was [1, true]"),
        ("[engine]\ncores = [1, 1]", "engine.cores: must name each CPU once, was [1, 1]"),
        ("[engine]\nidle = 'sleep'", 'engine.idle: must be "block" or "spin_then_sleep" or "spin", was \'sleep\''),
        ("[engine]\nidle = ['spin']", 'engine.idle: must be "block" or "spin_then_sleep" or "spin", was [\'spin\']'),
        ("[server]\ndrain_s = nan", "server.drain_s: must be 0 to 600, was nan"),
        ("[server]\naddress = 5", 'server.address: must be text in quotes, such as "name", was 5'),
        ("[record]\nfolder = 'a\\u0000b'", None),
        ('[record]\nfolder = "a\\u0000b"', "record.folder: must not have a zero byte, was 'a\\x00b'"),
        (
            "[sessions]\nin_flight_max = 5000",
            "sessions.in_flight_max: must be a power of two, 64 to 1_048_576, was 5000",
        ),
        ("[metrics]\naddress = '0.0.0.0:9464'", "metrics.address: must be on loopback"),
        ("[metrics]\naddress = 'unix:/x'", "metrics.address: must be HOST:PORT"),
        ("[server]\naddress = 'example.com:443'", "server.address: must be on loopback"),
        ("[server]\naddress = 'nonsense'", "server.address: must be unix:PATH or HOST:PORT"),
        ("[budget]\nstale_us = 10", "budget.stale_us: must be at least budget.total_us (5000), was 10"),
        ("[engine]\ndevice = 'gpu'", 'engine.device: must be "auto", "cpu", "cuda", or "cuda:N" for the GPU'),
        ("[engine]\ndevice = 'cuda:01'", 'engine.device: must be "auto", "cpu", "cuda", or "cuda:N" for the GPU'),
        ("[engine]\ndevice_watch_s = 0.1", "engine.device_watch_s: must be 1 to 3600; 0 is off, was 0.1"),
        ("[engine]\ndevice_batch_max = 48", "engine.device_batch_max: must be a power of two, 1 to 4096, was 48"),
        (
            "[engine]\nbatch_max = 0x" + "f" * 5000,
            "engine.batch_max: must be 1 to 4096, was a whole number of 20000 bits",
        ),
        ("[server]\ndrain_s = 0x" + "f" * 5000, "server.drain_s: must be a smaller number, was a whole number of"),
    ],
)
def test_wrong_value_in_a_file_is_named_with_what_it_must_be(toml, sentence, tmp_path):
    if sentence is None:  # A literal string holds a backslash and a u: a path like any other.
        assert load(toml=toml, tmp_path=tmp_path).record.folder == "a\\u0000b"
        return
    (fault,) = faults(toml=toml, tmp_path=tmp_path)
    assert fault.startswith(sentence)


def test_address_that_is_too_long_says_how_long_it_is_and_what_to_do():
    (fault,) = faults(f"server.address=unix:/{'x' * 107}")
    assert fault.startswith("server.address: must have a socket path of at most 107 bytes (this one has 108; choose a")
    assert load(f"server.address=unix:/{'x' * 106}").server.address == f"unix:/{'x' * 106}"


def test_spinning_engine_may_not_share_its_only_cpu_with_the_server():
    sets = ("engine.idle=spin", "engine.cores=1")
    (fault,) = faults(*sets, "server.cores=1")
    assert fault.startswith("engine.cores: must not be the only CPU of server.cores")
    load(*sets, "server.cores=0,1")


def test_text_that_is_not_utf_8_is_refused():
    found = faults(environ={"PENSTOCK_RECORD__FOLDER": "a\udcff"})
    assert found == ["record.folder: must be UTF-8, was 'a\\udcff' (in PENSTOCK_RECORD__FOLDER)"]


def test_unknown_key_without_a_near_one_says_where_all_are_shown():
    assert faults("zzz.qqq=1") == ["zzz.qqq: unknown key; --print-config shows every key (in --set)"]


def test_environment_variable_of_no_key_is_a_fault_and_names_the_nearest():
    (fault,) = faults(environ={"PENSTOCK_ENGINE__IDEL": "spin"})
    assert fault == (
        "PENSTOCK_ENGINE__IDEL: no key has this variable; did you mean PENSTOCK_ENGINE__IDLE? (in the environment)"
    )


def test_environment_variables_of_others_are_left_alone():
    load(environ={"PENSTOCK_DATA": "x", "PENSTOCK": "y", "OTHER__KEY": "z"})


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"[engine", "must be TOML in UTF-8"),
        (b"\xff", "must be TOML in UTF-8"),
        (b"a = " + b"[" * 5000, "must be TOML"),
        (b"#" * (1024 * 1024 + 1), "must be a configuration file of at most 1_048_576 bytes"),
    ],
)
def test_file_that_is_no_configuration_is_refused(content, sentence, tmp_path):
    path = tmp_path / "penstock.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=sentence) as refusal:
        load_config(path, {}, ())
    assert "penstock.toml" in str(refusal.value)


def test_file_that_is_missing_is_refused_and_other_faults_are_still_found(tmp_path):
    with pytest.raises(ConfigError) as refusal:
        load_config(tmp_path / "missing.toml", {}, ["engine.spin_us=0"])
    assert len(refusal.value.faults) == 2
    assert "missing.toml': must be a readable configuration file: No such file or directory" in refusal.value.faults[0]


def test_default_address_is_in_the_runtime_folder_then_in_the_temporary_one(tmp_path):
    runtime, temporary = tmp_path / "run", tmp_path / "tmp"
    runtime.mkdir()
    temporary.mkdir()
    both = {"XDG_RUNTIME_DIR": str(runtime), "TMPDIR": str(temporary)}
    assert load(environ=both).server.address == f"unix:{runtime}/penstock.sock"
    assert load(environ={"TMPDIR": str(temporary)}).server.address == f"unix:{temporary}/penstock-{os.getuid()}.sock"
    assert load(environ={"XDG_RUNTIME_DIR": "/missing"}).server.address == f"unix:/tmp/penstock-{os.getuid()}.sock"


def test_default_address_never_is_too_long_for_a_socket(tmp_path):
    long = tmp_path / ("x" * 100)
    long.mkdir()
    environ = {"XDG_RUNTIME_DIR": str(long), "TMPDIR": str(long)}
    assert load(environ=environ).server.address == f"unix:/tmp/penstock-{os.getuid()}.sock"


def test_rendered_configuration_is_toml_with_every_key_and_advice():
    text = render_toml(Config.defaults())
    document = tomllib.loads(text)
    assert {f"{section}.{name}" for section, table in document.items() for name in table} == {
        key.path for key in keys()
    }
    unwrapped = " ".join(line.removeprefix("# ") for line in text.splitlines())
    assert all(key.advice in unwrapped for key in keys())
    assert max(map(len, text.splitlines())) <= 120


def test_sections_are_the_ones_that_config_has():
    assert list(section_types()) == [one.name for one in dataclasses.fields(Config)]


@pytest.mark.parametrize("text", ["x", "1-", "-1", "3-1", "1,,2", "1 2", "99999", "1;2", "[1", "٣"])
def test_cpu_list_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match=r"CPU number|runs backwards"):
        parse_cpu_ranges(text)


def test_cpu_ranges_read_and_written_are_the_same():
    assert cpu_ranges(parse_cpu_ranges("0-3,8,10-11\n")) == "0-3,8,10-11"


def test_configuration_imports_neither_numba_nor_grpc_nor_numpy():
    code = (
        "import sys, penstock_daemon.config, penstock_daemon.socket_guard, penstock_daemon.notify; "
        "print([name for name in ('numba', 'grpc', 'numpy', 'structlog') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("units", [0, 1, 32, 256])
def test_memory_of_online_readouts_has_the_bound_that_the_kernels_have(units):
    least = forgetting_least(units)
    below = math.nextafter(least, 0.0)
    check_forgetting(least, regressors(FEATURES, units))
    assert load(f"online.units={units}", f"online.forgetting={least!r}").online.forgetting == least
    with pytest.raises(OnlineError):
        check_forgetting(below, regressors(FEATURES, units))
    (fault,) = faults(f"online.units={units}", f"online.forgetting={below!r}")
    assert fault.startswith(f"online.forgetting: must be at least {least:.6f} where online.units is {units} (")


def test_dense_reservoirs_are_no_larger_than_any():
    (fault,) = faults("models.units_max=64", "models.dense_units_max=65")
    assert fault == "models.dense_units_max: must be at most models.units_max (64), was 65"
    assert load("models.units_max=64", "models.dense_units_max=64").models.dense_units_max == 64


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0", "cuda:11"])
def test_device_is_any_of_its_names(device):
    assert load(f"engine.device={device}").engine.device == device


def test_resident_kernel_has_no_graph_that_copies():
    (fault,) = faults("engine.device_mode=resident", "engine.device_transfer=copied")
    assert fault.startswith(
        'engine.device_transfer: must be "staged" or "in_place" where engine.device_mode is "resident"'
    )
    assert load("engine.device_mode=resident", "engine.device_watch_s=0").engine.device_watch_s == 0
