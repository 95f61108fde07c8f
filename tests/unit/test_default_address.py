"""The daemon and its clients find each other without a word: one rule, written on both sides."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from penstock_client.default_address import default_address
from penstock_daemon.addresses import default_server_address

VARIABLES = ("XDG_RUNTIME_DIR", "TMPDIR", "TEMP", "TMP")


def folders_of(root: Path) -> dict[str, str | None]:
    """Return one of each kind of value that a variable may have; None for a variable that is not set."""
    short, file = root / "a", root / "file"
    file.write_text("")
    name_bytes = len(f"/penstock-{os.getuid()}.sock")
    fitting = root / ("f" * (107 - name_bytes - len(os.fsencode(root)) - 1))
    for folder in (short, root / "a b é", fitting, root / "x" / ("l" * 100)):
        folder.mkdir(parents=True)
    return {
        "unset": None,
        "empty": "",
        "short": str(short),
        "slash at its end": f"{short}//",
        "odd letters": str(root / "a b é"),
        "no UTF-8": f"{root}/\udcff",
        "just fits": str(fitting),
        "too long": str(root / "x" / ("l" * 100)),
        "missing": str(root / "missing"),
        "a file": str(file),
        "relative": ".",
        "with a zero": f"{short}\0",
    }


@pytest.fixture
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder whose path leaves room for a socket's."""
    folder = tmp_path_factory.mktemp("d")
    if len(os.fsencode(folder)) > 80:
        pytest.skip("the folder for temporary files has too long a name for sockets in it")
    return folder


def test_client_and_daemon_choose_the_same_address_in_every_environment(root: Path) -> None:
    values = folders_of(root)
    seen = set()
    for chosen in itertools.product(values, repeat=3):
        environ = {
            variable: values[kind]
            for variable, kind in zip(VARIABLES, (*chosen, chosen[0]), strict=True)
            if values[kind] is not None
        }
        address = default_address(environ)
        assert address == default_server_address(environ), environ
        seen.add(address)
    assert len(seen) >= 7, "the environments are too much alike to tell two rules apart"


def test_client_asks_the_environment_it_runs_in(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(root))
    assert default_address() == default_server_address(os.environ) == f"unix:{root}/penstock.sock"
