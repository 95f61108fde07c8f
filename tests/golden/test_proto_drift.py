"""The committed modules are what the pinned generator makes of the .proto files, byte for byte."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

MAKE_SECONDS = 170


@pytest.fixture(scope="module")
def generator(repository_root: Path) -> Path:
    """Give the Python of the generator's environment, which make builds; where that can't be, skip."""
    quiet = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    try:
        made = subprocess.run(
            ["make", "--no-print-directory", ".tools/protoc/installed"],
            cwd=repository_root,
            env=quiet,
            capture_output=True,
            text=True,
            timeout=MAKE_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("no make")
    except subprocess.TimeoutExpired:
        pytest.skip(f"the generator was not installed within {MAKE_SECONDS} s")
    if made.returncode:
        said = [line for line in made.stderr.splitlines() if line.strip()]
        pytest.skip("no generator (grpcio-tools 1.62.3 needs Python 3.11 or 3.12 and a package index): " + said[0])
    return repository_root / ".tools" / "protoc" / "bin" / "python"


def generate(repository_root: Path, generator: Path, out: Path) -> dict[str, bytes]:
    subprocess.run(
        [repository_root / "protos" / "generate.sh", out],
        check=True,
        env=os.environ | {"PENSTOCK_PROTOC_PYTHON": str(generator)},
    )
    return generated_in(out)


def generated_in(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*_pb2*.py*"))}


@pytest.mark.install
def test_committed_modules_are_what_the_generator_makes(repository_root: Path, generator: Path, tmp_path: Path) -> None:
    made = generate(repository_root, generator, tmp_path)
    committed = {
        name: data for name, data in generated_in(repository_root / "protos").items() if "__pycache__" not in name
    }
    assert sorted(made) == sorted(committed)
    differing = [name for name in made if made[name] != committed[name]]
    assert not differing, f"run 'make protos': {differing}"


@pytest.mark.install
def test_generator_is_the_oldest_supported_one(repository_root: Path, generator: Path) -> None:
    listed = subprocess.run([generator, "-m", "pip", "freeze", "--all"], check=True, capture_output=True, text=True)
    pinned = (repository_root / "protos" / "constraints.txt").read_text(encoding="utf-8").split()
    assert {line for line in pinned if "==" in line} <= set(listed.stdout.split())
    assert "grpcio-tools==1.62.3" in pinned


@pytest.mark.install
def test_a_changed_source_makes_other_modules(repository_root: Path, generator: Path, tmp_path: Path) -> None:
    copy = tmp_path / "protos"
    (copy / "penstock" / "v1").mkdir(parents=True)
    for path in (repository_root / "protos" / "penstock" / "v1").glob("*.proto"):
        changed = path.read_text(encoding="utf-8").replace("string mend = 4;", "string mend = 5;")
        (copy / "penstock" / "v1" / path.name).write_text(changed, encoding="utf-8")
    (copy / "generate.sh").write_bytes((repository_root / "protos" / "generate.sh").read_bytes())
    (copy / "generate.sh").chmod(0o755)
    made = generate(tmp_path, generator, copy)
    committed = repository_root / "protos" / "penstock" / "v1"
    assert made["penstock/v1/status_pb2.py"] != (committed / "status_pb2.py").read_bytes()
    assert made["penstock/v1/model_pb2.py"] == (committed / "model_pb2.py").read_bytes()
