"""A fit that was stopped: killed for real, resumed to the same bytes; another training's checkpoint is refused."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from penstock_tuning.market.recording import write_market
from penstock_tuning.market.settings import MarketSettings
from penstock_tuning.model.checkpoint import Checkpoint
from penstock_tuning.model.cli import main

FIT = ["--units", "48", "--fan-in", "4", "--horizons", "next,20ev"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("markets")
    paths = []
    for day in range(2):
        start_ns = 1_704_067_200_000_000_000 + day * 3_600 * 10**9
        paths.append(folder / f"{day}.dbn.zst")
        write_market(paths[-1], MarketSettings(seed=day, start_ns=start_ns), 40.0, lambda _: None)
    return [str(path) for path in paths]


@pytest.fixture(scope="module")
def uninterrupted(files: list[str], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "m.safetensors"
    assert main(["fit", *files, *FIT, "--out", str(path)]) == 0
    return path.read_bytes()


def stopped(by: signal.Signals, files: list[str], out: Path, *more: str) -> tuple[int, str]:
    """Send *by* to a fit once it has left a checkpoint, and return its exit code and what it told."""
    checkpoint = out.with_name(out.name + ".fit-checkpoint")
    before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
    command = [sys.executable, "-m", "penstock_tuning.model.cli", "fit", *files, *FIT, "--out", str(out)]
    process = subprocess.Popen([*command, "--checkpoint-seconds", "0", *more], stderr=subprocess.PIPE)
    while process.poll() is None and not (checkpoint.exists() and checkpoint.stat().st_mtime_ns > before):
        time.sleep(0.002)
    process.send_signal(by)
    _, told = process.communicate(timeout=60)
    return process.returncode, told.decode()


def killed(files: list[str], out: Path, *more: str) -> Path:
    """Kill a fit once it has left a checkpoint, and return its checkpoint."""
    code, told = stopped(signal.SIGKILL, files, out, *more)
    assert code == -9, told
    return out.with_name(out.name + ".fit-checkpoint")


def test_killed_fit_goes_on_to_the_bytes_of_one_that_was_not(
    files: list[str], uninterrupted: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "m.safetensors"
    checkpoint = killed(files, out)
    killed(files, out, "--resume")
    assert not out.exists()
    assert main(["fit", *reversed(files), *FIT, "--out", str(out), "--resume"]) == 0
    assert out.read_bytes() == uninterrupted
    assert not checkpoint.exists()


def test_interrupted_fit_names_its_checkpoint_which_no_other_fit_overwrites(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m.safetensors"
    code, told = stopped(signal.SIGINT, files, out)
    checkpoint = out.with_name(out.name + ".fit-checkpoint")
    assert code == 130, told
    assert f"no result was written; {checkpoint} is kept: --resume goes on from it" in told
    kept = checkpoint.read_bytes()
    assert main(["fit", *files, *FIT, "--out", str(out)]) == 2
    assert f"{checkpoint} holds an earlier fit; give --resume to go on with it, or remove it" in capsys.readouterr().err
    assert checkpoint.read_bytes() == kept
    assert not out.exists()


def test_checkpoint_of_another_training_is_refused_and_kept(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m.safetensors"
    checkpoint = killed(files, out)
    kept = checkpoint.read_bytes()
    for other in ([files[0], *FIT], [*files, *FIT, "--penalty", "1"], [*files, *FIT, "--name", "other"]):
        assert main(["fit", *other, "--out", str(out), "--resume"]) == 2
        assert "is of other settings, other tick files or another version" in capsys.readouterr().err
        assert checkpoint.read_bytes() == kept
    checkpoint.write_bytes(kept[:-100])
    assert main(["fit", *files, *FIT, "--out", str(out), "--resume"]) == 2
    assert "is no checkpoint of a fit" in capsys.readouterr().err
    assert not out.exists()


def test_resume_without_a_checkpoint_begins_at_the_beginning(
    files: list[str], uninterrupted: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "m.safetensors"
    assert main(["fit", *files, *FIT, "--out", str(out), "--resume"]) == 0
    assert out.read_bytes() == uninterrupted
    assert list(tmp_path.iterdir()) == [out]


def test_interrupt_while_a_checkpoint_is_written_leaves_no_scratch_file(tmp_path: Path) -> None:
    class Interrupts:
        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            raise KeyboardInterrupt

    checkpoint = Checkpoint(tmp_path / "m.safetensors")
    checkpoint.save("key", {}, {"kept": np.arange(3)})
    kept = checkpoint.path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save("key", {}, {"other": Interrupts()})
    assert checkpoint.path.read_bytes() == kept
    assert list(tmp_path.iterdir()) == [checkpoint.path]


@pytest.mark.parametrize("seconds", ["-1", "nan"])
def test_impossible_time_between_checkpoints_is_refused(
    seconds: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["fit", "day.dbn", "--out", str(tmp_path / "m.safetensors"), "--checkpoint-seconds", seconds]
    assert main(arguments) == 2
    assert f"checkpoint-seconds={seconds}; 60 is usual" in capsys.readouterr().err
