"""The house keeps its own rules: arrows between rooms, captions, file sizes, pins, and nothing of anyone's machine."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOMS = {
    "penstock": "protos/penstock",
    "penstock_kernels": "kernels/penstock_kernels",
    "penstock_daemon": "daemon/penstock_daemon",
    "penstock_client": "client/penstock_client",
    "penstock_host": "tuning/penstock_host",
    "penstock_tuning": "tuning/penstock_tuning",
}

# One forbidden import in each room that has a rule, and the rule.
PLANTED = {
    "penstock": ("import penstock_kernels", "The contract imports nothing of ours"),
    "penstock_kernels": ("import grpc", "Kernels are pure computation over the contract"),
    "penstock_daemon": ("import penstock_client", "The daemon uses the contract, the kernels and the host"),
    "penstock_client": ("import numba", "A strategy's environment gets the contract alone"),
    "penstock_host": ("import numpy", "The host tools need the standard library alone"),
}

LINES_MAX = 400

# The tildes keep this file from being found by its own test.
FOREIGN = re.compile(
    r"/(work|home|root|Users)/\w|/tmp/bash~_jobs|\.pye~nv/versions|py~pi\.org|pyth~onhosted|ind~ex[-_]url".replace(
        "~", ""
    )
)
BINARY = {".safetensors", ".npy", ".png", ".zst", ".dbn"}


def lint_imports(root: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the linter of *root*'s contracts over the packages of *folder*."""
    path = os.pathsep.join(dict.fromkeys(str((folder / room).parent) for room in ROOMS.values()))
    program = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [program, "--config", root / "pyproject.toml", "--no-cache"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def tracked_files(root: Path) -> list[Path]:
    """List what git holds or would hold; without git, skip."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=root,
            capture_output=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [path for name in listed.stdout.decode().split("\0") if name and (path := root / name).is_file()]


def is_generated(path: Path) -> bool:
    return re.search(r"_pb2(_grpc)?\.pyi?\Z", path.name) is not None


def test_rooms_import_only_along_the_arrows(repository_root: Path) -> None:
    done = lint_imports(repository_root, repository_root)
    assert done.returncode == 0, done.stdout + done.stderr


def test_forbidden_import_in_any_room_breaks_that_rooms_contract(repository_root: Path, tmp_path: Path) -> None:
    for package, room in ROOMS.items():
        shutil.copytree(repository_root / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
        statement, _ = PLANTED.get(package, ("", ""))
        (tmp_path / room / "planted.py").write_text(f'"""Planted."""\n\n{statement}\n', encoding="utf-8")
    done = lint_imports(repository_root, tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    # The linter wraps the lines of its table.
    said = " ".join(done.stdout.split())
    assert [rule for _, rule in PLANTED.values() if f"{rule} BROKEN" not in said] == [], done.stdout


def test_every_room_but_the_one_that_may_use_all_has_a_contract(repository_root: Path) -> None:
    config = tomllib.loads((repository_root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    assert {contract["name"] for contract in config["contracts"]} == {rule for _, rule in PLANTED.values()}
    assert set(config["root_packages"]) == set(ROOMS)
    assert set(ROOMS) - set(PLANTED) == {"penstock_tuning"}


def test_modules_that_begin_first_are_there(repository_root: Path) -> None:
    page = ast.parse((repository_root / "tests" / "conftest.py").read_text(encoding="utf-8"))
    (first,) = (
        ast.literal_eval(line.value)
        for line in page.body
        if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "FIRST"
    )
    assert [name for name in first if not (repository_root / "tests" / name).is_file()] == []


def test_every_package_opens_with_a_caption_of_one_line(repository_root: Path) -> None:
    wrong = []
    for room in ROOMS.values():
        for path in (repository_root / room).rglob("__init__.py"):
            caption = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            if not re.match(r"[A-Z].*[.]\Z", caption.split("\n")[0]):
                wrong.append(f"{path}: {caption!r}")
    assert not wrong, "\n".join(wrong)


def test_every_module_opens_with_its_idea(repository_root: Path) -> None:
    without = [
        str(path)
        for path in tracked_files(repository_root)
        if path.suffix == ".py" and not is_generated(path)
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not without, "\n".join(without)


def test_no_file_of_code_is_longer_than_one_idea(repository_root: Path) -> None:
    long = [
        f"{path}: {lines} lines"
        for path in tracked_files(repository_root)
        if path.suffix in {".py", ".cu", ".sh"} and not is_generated(path)
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > LINES_MAX
    ]
    assert not long, "\n".join(long)


def test_nothing_of_a_machine_or_a_registry_is_written_down(repository_root: Path) -> None:
    found = [
        f"{path}:{number}: {line.strip()[:120]}"
        for path in tracked_files(repository_root)
        if path.suffix not in BINARY
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if FOREIGN.search(line)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("line", ["cd /wo~rk/main", "--ind~ex-url=x", "/ho~me/me/.bashrc", "https://py~pi.org/simple"])
def test_search_for_machines_and_registries_finds_them(line: str) -> None:
    assert FOREIGN.search(line.replace("~", ""))


def pins(root: Path) -> dict[str, str]:
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(pair) == 2 for pair in pairs), "constraints.txt holds name==version alone"
    return {canonicalize_name(name): version for name, version in pairs}


def needed(name: str, extras: frozenset[str], seen: set[tuple[str, frozenset[str]]]) -> set[str]:
    """Collect the names of all that *name* with *extras* needs on this Python, itself left out."""
    found: set[str] = set()
    for text in metadata.requires(name) or []:
        requirement = Requirement(text)
        marker = requirement.marker
        if marker and not any(marker.evaluate({"extra": extra}) for extra in extras | {""}):
            continue
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key[0] != "penstock":
            found.add(key[0])
        if key not in seen:
            seen.add(key)
            found |= needed(key[0], key[1], seen)
    return found


def test_all_that_is_installed_for_us_is_pinned_and_is_the_pinned_version(repository_root: Path) -> None:
    pinned = pins(repository_root)
    names = needed("penstock", frozenset({"dev"}), set())
    assert {"numpy", "llvmlite", "pluggy"} <= names
    assert sorted(names - set(pinned)) == [], "add them to constraints.txt"
    other = {name: metadata.version(name) for name in names if metadata.version(name) != pinned[name]}
    assert not other, "run make again: these are not the versions of constraints.txt"


def test_every_requirement_of_the_project_allows_its_pin(repository_root: Path) -> None:
    pinned = pins(repository_root)
    project = tomllib.loads((repository_root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = list(project["dependencies"])
    for extra, requirements in project["optional-dependencies"].items():
        if extra not in {"cuda12", "cuda13", "peers"}:  # Not installed by make: they need a GPU, or are compared with.
            listed += requirements
    for requirement in map(Requirement, listed):
        if requirement.name != "penstock":
            assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), str(requirement)


def test_continuous_integration_runs_the_command_of_the_readme(repository_root: Path) -> None:
    run = repository_root / ".ci" / "run"
    assert os.access(run, os.X_OK)
    assert re.search(r"^exec make test$", run.read_text(encoding="utf-8"), re.MULTILINE)
    readme = (repository_root / "README.md").read_text(encoding="utf-8")
    assert "make test" in readme
    assert "make run" in readme


def test_every_link_between_pages_leads_somewhere(repository_root: Path) -> None:
    dead = [
        f"{path}: {target}"
        for path in tracked_files(repository_root)
        if path.suffix == ".md"
        for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8"))
        if "://" not in target and not (path.parent / target.partition("#")[0]).exists()
    ]
    assert not dead, "\n".join(dead)


def test_every_folder_of_the_house_is_on_the_map(repository_root: Path) -> None:
    page = (repository_root / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rooms = [room for name, room in ROOMS.items() if name != "penstock"]
    assert [room for room in [*rooms, "protos/penstock/v1", "deploy/", "tests/"] if f"`{room}`" not in page] == []


def test_every_file_that_the_map_points_to_is_there(repository_root: Path) -> None:
    page = (repository_root / "ARCHITECTURE.md").read_text(encoding="utf-8")
    table = page.split("## Where to change what")[1].split("\n## ")[0]
    named = [name for name in re.findall(r"`([\w/]+/[\w./*]+)`", table) if not list(repository_root.glob(name))]
    assert not named, named
