"""What each command of penstock-train does; progress goes to stderr, results to stdout."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from penstock_kernels.model_file import LoadedModel, default_model_path, load_model, model_to_bytes, save_model
from penstock_tuning.market.recording import write_market
from penstock_tuning.market.settings import DATASET, MarketSettings
from penstock_tuning.model.checkpoint import Checkpoint
from penstock_tuning.model.default import make_default
from penstock_tuning.model.describe import as_json, as_text, skill_lines
from penstock_tuning.model.errors import TrainingError
from penstock_tuning.model.evaluate_command import run_evaluate
from penstock_tuning.model.fit import fit
from penstock_tuning.model.progress import Progress
from penstock_tuning.model.recordings import open_recordings
from penstock_tuning.model.setting_options import settings_of
from penstock_tuning.model.settings import DEMONSTRATION_NOTICE


def run(options: Namespace) -> int:
    """Run the command that *options* name and return its exit code."""
    commands = {
        "simulate": _simulate,
        "fit": _fit,
        "evaluate": _evaluate,
        "search": _search,
        "describe": _describe,
        "default": _default,
    }
    return commands[options.command](options)


def _simulate(options: Namespace) -> int:
    settings = MarketSettings(
        seed=options.seed,
        instruments=options.instruments,
        ticks_per_second=options.rate,
        signal=options.signal,
    )
    path = Path(options.out)
    with _bars() as on_progress:
        market = write_market(
            path,
            settings,
            options.seconds,
            lambda done_s: on_progress("simulating", int(done_s), max(1, int(options.seconds))),
        )
    written = {
        "file": str(path),
        "ticks": len(market.ticks),
        "seconds": options.seconds,
        "seed": options.seed,
        "instruments": [one.symbol for one in market.instruments],
        "bytes": path.stat().st_size,
    }
    if options.json:
        print(json.dumps(written, indent=2))
    else:
        print(
            f"wrote {path}: {written['ticks']} ticks of {', '.join(written['instruments'])} in {options.seconds:g} s, "
            f"{written['bytes']} bytes"
        )
    return 0


def _fit(options: Namespace) -> int:
    settings = settings_of(
        options,
        name=options.name,
        version=options.model_version,
        demonstration=options.demonstration,
        notice=options.notice or (DEMONSTRATION_NOTICE if options.demonstration else ""),
    )
    path = _model_path(options.out)
    checkpoint = Checkpoint(path, resume=options.resume, every_s=options.checkpoint_seconds)
    wanted = [name.strip() for name in options.instruments.split(",") if name.strip()]
    with _bars() as on_progress:
        recordings = open_recordings(options.ticks, options.columns, wanted, on_progress)
        if any(name.startswith(f"{DATASET}:") for one in recordings.all for name in one.instruments):
            settings = replace(settings, demonstration=True, notice=settings.notice or DEMONSTRATION_NOTICE)
        model = fit(recordings, settings, on_progress, checkpoint)
    loaded = save_model(model, path)
    checkpoint.remove()
    _tell(loaded, path, as_json_too=options.json)
    return 0


def _evaluate(options: Namespace) -> int:
    return run_evaluate(options, _bars)


def _search(options: Namespace) -> int:
    from penstock_tuning.model.search_command import run_search

    with _bars() as on_progress:
        told = run_search(options, on_progress)
    print(told)
    return 0


def _describe(options: Namespace) -> int:
    loaded = load_model(options.model)
    print(json.dumps(as_json(loaded), indent=2) if options.json else as_text(loaded))
    return 0


def _default(options: Namespace) -> int:
    path = _model_path(options.out or str(default_model_path()))
    with _bars() as on_progress:
        model = make_default(on_progress)
    if options.check:
        same = path.is_file() and path.read_bytes() == model_to_bytes(model)
        print(f"{path}: {'the same bytes' if same else 'OTHER bytes; run penstock-train default'}")
        return 0 if same else 1
    _tell(save_model(model, path), path, as_json_too=options.json)
    return 0


def _tell(loaded: LoadedModel, path: Path, *, as_json_too: bool) -> None:
    if as_json_too:
        print(json.dumps({"file": str(path), **as_json(loaded)}, indent=2))
        return
    model = loaded.model
    print(f"wrote {path}: {model.name} {model.version}".rstrip() + f", serial {loaded.serial}")
    if model.notice:
        print(f"  {model.notice}")
    print("\n".join(skill_lines(model)))


def _model_path(name: str) -> Path:
    """Return *name* as a path, refused before any work when nothing could be written there."""
    path = Path(name)
    if path.suffix != ".safetensors":
        raise TrainingError(f"out must end in .safetensors: out={name}; rename it")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise TrainingError(f"out must be a file in a folder that is there: out={name}; make the folder first")
    return path


@contextmanager
def _bars() -> Iterator[Progress]:
    """Give a Progress that draws one bar per stage on stderr, where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    columns: list[Any] = [
        TextColumn("{task.description:24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    ]
    tasks: dict[str, Any] = {}
    with Bars(*columns, console=console, disable=not console.is_terminal) as bars:

        def on_progress(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield on_progress
