"""A fit that was stopped goes on: all of its state in one file beside the output, replaced as a whole.

    MODEL.fit-checkpoint = arrays + the cursor + a key over settings, recordings and version
    another key is another training: its checkpoint is refused, never mixed

The file is written aside and renamed, so that it is always one whole state; it is removed when the model is written.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_kernels.features import FEATURE_NAMES
from penstock_tuning.model.errors import TrainingError
from penstock_tuning.model.recordings import Recordings
from penstock_tuning.model.settings import FitSettings

SUFFIX: Final = ".fit-checkpoint"
EVERY_S: Final = 60.0
_ABOUT: Final = "about"


class Checkpoint:
    """The checkpoint of one output.

    Raises:
        TrainingError: *every_s* is below 0 or no number, or a checkpoint is there and *resume* is not asked for.
    """

    def __init__(
        self,
        output: Path,
        *,
        resume: bool = False,
        every_s: float = EVERY_S,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Stand beside *output*; *resume* says whether to go on from what is there."""
        if not every_s >= 0.0:
            raise TrainingError(
                f"checkpoint seconds must be 0 or more: checkpoint-seconds={every_s:g}; {EVERY_S:g} is usual"
            )
        self.path = output.with_name(output.name + SUFFIX)
        if self.path.exists() and not resume:
            raise TrainingError(f"{self.path} holds an earlier fit; give --resume to go on with it, or remove it")
        self._resume = resume
        self._every_s = every_s
        self._clock_s = clock_s
        self._saved_s = clock_s()

    def load(self, key: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]] | None:
        """Return what was kept of the training *key*; None where there is nothing to go on from."""
        if not self._resume or not self.path.exists():
            return None
        try:
            with self.path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
                about = json.loads(bytes(kept[_ABOUT]))
                arrays = {name: kept[name] for name in kept.files if name != _ABOUT}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as exc:
            raise TrainingError(
                f"{self.path} is no checkpoint of a fit: {exc}; remove it, or name another --out"
            ) from exc
        if about.get("key") != key:
            raise TrainingError(
                f"{self.path} is of other settings, other tick files or another version: key={about.get('key', '')[:16]}, "
                f"wanted={key[:16]}; give the same ones, or remove it"
            )
        return about, arrays

    def due(self) -> bool:
        """Whether it is time to save again."""
        return self._clock_s() - self._saved_s >= self._every_s

    def save(self, key: str, about: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Keep *about*, JSON, and *arrays* in place of what was kept before."""
        text = np.frombuffer(json.dumps({**about, "key": key}).encode(), dtype=np.uint8)
        scratch = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            with scratch.open("wb") as file:
                whole: dict[str, Any] = {_ABOUT: text, **arrays}
                np.savez(file, **whole)
                file.flush()
                os.fsync(file.fileno())  # Else a power cut could leave the new name with nothing in it.
            scratch.replace(self.path)
        except OSError as exc:
            raise TrainingError(
                f"{self.path} can't be written: {exc.strerror or exc}; make room there, or choose another folder for --out"
            ) from exc
        finally:
            scratch.unlink(missing_ok=True)  # After an interrupt too.
        self._saved_s = self._clock_s()

    def remove(self) -> None:
        """Forget what was kept: the model is written."""
        self.path.unlink(missing_ok=True)


def key_of(recordings: Recordings, settings: FitSettings) -> str:
    """Return what tells trainings apart, as hexadecimal."""
    told = {
        "settings": asdict(settings),
        "recordings": [asdict(one) for one in recordings.all],
        "features": FEATURE_NAMES,
        "version": version("penstock"),
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()
