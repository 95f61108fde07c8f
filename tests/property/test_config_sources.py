"""Whatever the sources of a configuration hold, the outcome is a Config or one ConfigError."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from penstock_daemon.config import Config, ConfigError, load_config, render_toml
from penstock_daemon.config_budget import PATH_SECTIONS
from penstock_daemon.config_fields import Key, keys
from penstock_daemon.config_limits import PowerOfTwo
from penstock_daemon.config_text import toml_value

CPUS = frozenset(range(8))
KEYS = tuple(keys())
KEYS_BY_PATH = {key.path: key for key in KEYS}

FEED_SAMPLES = {
    "group": ["", "239.1.2.3:26400"],
    "group_b": ["", "224.0.0.1:1"],
    "interface": ["", "lo", "10.0.0.1"],
    "interface_b": ["", "eth1"],
    "name": ["feed", "Nasdaq, line A"],
    "instruments": ["A=1", "A = 1, B=4294967295"],
    "dataset": ["", "XNAS.ITCH"],
    "date": ["", "2010-12-24"],
    "time_zone": ["UTC"],
    "recovery": ["", "localhost:1", "[::1]:65535"],
}

anything = st.text(max_size=40) | st.sampled_from(["nan", "-1", "1e400", "9" * 5000, "[[]]", "\udcff", "\0", "true"])
names = st.sampled_from(sorted(KEYS_BY_PATH)) | st.text(max_size=20)
toml_values = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=5,
)


def load_or_refuse(path: Path | None, environ: dict[str, str], sets: list[str]) -> None:
    try:
        config = load_config(path, environ, sets, cpus=CPUS)
    except ConfigError as refusal:
        faults = refusal.faults
    else:
        assert isinstance(config, Config)
        return
    assert faults
    for fault in faults:
        fault.encode("utf-8")
        assert len(fault.splitlines()) == 1
        assert len(fault) < 600


@given(st.lists(st.tuples(names, anything).map("=".join) | anything, max_size=4))
def test_any_sets_give_a_configuration_or_its_faults(sets):
    load_or_refuse(None, {}, sets)


@given(st.dictionaries(st.sampled_from([key.variable for key in KEYS]) | st.text().map("PENSTOCK_{}".format), anything))
def test_any_environment_gives_a_configuration_or_its_faults(environ):
    load_or_refuse(None, environ, [])


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_as_a_file_give_a_configuration_or_its_faults(content):
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        load_or_refuse(Path(file.name), {}, [])


@given(st.sampled_from(KEYS), toml_values)
def test_any_value_of_a_key_in_a_file_gives_a_configuration_or_its_faults(key, value):
    with tempfile.NamedTemporaryFile("w", encoding="utf-8") as file:
        file.write(f"[{key.section}]\n{key.name} = {toml_value(value)}\n")
        file.flush()
        load_or_refuse(Path(file.name), {}, [])


def sound_values(key: Key) -> st.SearchStrategy[object]:
    if key.choices:
        return st.sampled_from(key.choices)
    if key.path == "server.address":
        return st.sampled_from(["unix:/run/penstock.sock", 'unix:a b\té\\".sock', "[::1]:0", "localhost:65535"])
    if key.path == "metrics.address":
        return st.sampled_from(["", "127.0.0.1:0", "[::1]:9464"])
    if key.path == "engine.device":
        return st.sampled_from(["auto", "cpu", "cuda", "cuda:0", "cuda:15"])
    if key.section == "feed" and key.name in FEED_SAMPLES:
        return st.sampled_from(FEED_SAMPLES[key.name])
    if isinstance(key.limit, PowerOfTwo):
        return st.integers(key.limit.low.bit_length() - 1, key.limit.high.bit_length() - 1).map(lambda power: 2**power)
    if key.path == "shared_memory.address":
        return st.sampled_from(["", "unix:/run/penstock-shm.sock"])
    if key.path == "clock.ptp":
        return st.sampled_from(["", "auto", "/dev/ptp0"])
    if key.kind is bool:
        return st.booleans()
    if key.kind is int:
        return st.integers(key.limit.low, key.limit.high)
    if key.kind is float:
        return st.floats(key.limit.low, key.limit.high)
    if key.kind is str:
        texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
        return texts.map(lambda text: text.encode()[: key.limit.bytes_max].decode(errors="ignore"))
    return st.lists(st.sampled_from(sorted(CPUS)), unique=True).map(tuple)


@given(st.fixed_dictionaries({}, optional={key.path: sound_values(key) for key in KEYS}))
def test_rendered_configuration_reads_back_as_the_same(values):
    sets = [f"{path}={_as_text(value)}" for path, value in values.items() if _survives_text(value)]
    sets += ["budget.total_us=100_000_000", "budget.stale_us=100_000_000"]  # So that the values go together.
    sets += [f"{section}.total_us=0" for section in PATH_SECTIONS]
    sets += ["server.cores=0-7", "feed.group=239.1.2.3:26400"]
    if not values.get("feed.instruments"):
        sets.append("feed.instruments=A=1")
    sets.append("online.forgetting=0.999999")  # Enough for any number of units.
    units_max = values.get("models.units_max", 16)
    sets.append(f"models.dense_units_max={min(values.get('models.dense_units_max', 0), units_max)}")
    if values.get("engine.device_mode") == "resident" and values.get("engine.device_transfer") == "copied":
        sets.append("engine.device_transfer=staged")
    if values.get("online.enabled"):
        sets.append(f"online.states={max(1, values.get('online.states', 1))}")
    sets += _time_for_neighbours(values)
    config = load_config(None, {}, sets, cpus=CPUS)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="") as file:
        file.write(render_toml(config))
        file.flush()
        assert load_config(Path(file.name), {}, [], cpus=CPUS) == config


def _time_for_neighbours(values: dict[str, object]) -> list[str]:
    """Return what keeps threads on the feed's only core from spinning where the engine runs there too."""
    core = values.get("feed.cores", ())
    return ["feed.idle=block", "engine.idle=block"] if len(core) == 1 and core == values.get("engine.cores") else []


def _survives_text(value: object) -> bool:
    """Whether a value means the same in --set, where spaces around it are nothing."""
    return not isinstance(value, str) or value == value.strip()


def _as_text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
