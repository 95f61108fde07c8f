"""penstock-train search: options in, best.json out, written aside and renamed; what was found in words."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from pathlib import Path
from typing import Any

from penstock_tuning.model.errors import TrainingError
from penstock_tuning.model.progress import Progress
from penstock_tuning.model.search import SUFFIX, Job, search
from penstock_tuning.model.setting_options import read_settings, settings_of
from penstock_tuning.model.settings import UNITS_MAX, UNITS_MIN


def run_search(options: Namespace, on_progress: Progress) -> str:
    """Search, write the file that *options* name, and return what to print.

    Raises:
        TrainingError: an option is impossible, or the file can't be written.
    """
    path = Path(options.out)
    if path.suffix != ".json":
        raise TrainingError(f"out must end in .json: out={options.out}; rename it")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise TrainingError(f"out must be a file in a folder that is there: out={options.out}; make the folder first")
    if not 0 <= options.search_seed < 2**32:
        raise TrainingError(f"search seed must be 0 to 2**32 - 1: search-seed={options.search_seed}; choose another")
    base = settings_of(options)
    job = Job(
        files=tuple(options.ticks),
        columns=options.columns,
        wanted=tuple(name.strip() for name in options.instruments.split(",") if name.strip()),
        base=base,
        units=_units(options, base.units),
        study_file=str(path.with_name(path.name + SUFFIX)),
        seed=options.search_seed,
    )
    found = search(job, options.trials, options.workers, resume=options.resume, on_progress=on_progress)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        scratch.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        scratch.replace(path)
    except OSError as exc:
        scratch.unlink(missing_ok=True)
        raise TrainingError(f"{path} can't be written: {exc.strerror}; name another --out and give --resume") from exc
    return json.dumps({"file": str(path), **found}, indent=2) if options.json else _text(path, found)


def _units(options: Namespace, given: int) -> tuple[int, ...]:
    """Return the sizes to try, *given* among them where a flag or the settings file says it."""
    text = options.units_tried
    try:
        found = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError as exc:
        raise TrainingError(f"units tried must be whole numbers: units-tried={text!r:.80}; mend it") from exc
    if found[0] < UNITS_MIN or found[-1] > UNITS_MAX:
        raise TrainingError(f"units tried must be {UNITS_MIN} to {UNITS_MAX}: units-tried={text!r:.80}; mend it")
    said = options.units is not None or (options.settings and "units" in read_settings(Path(options.settings)))
    return tuple(sorted({*found, given})) if said else found


def _text(path: Path, found: dict[str, Any]) -> str:
    counts, held = found["trials"], found["held_out"]
    low, high = found["protocol"]["searched_blocks"]
    first, last = found["protocol"]["held_out_blocks"]
    ended = f"{counts['complete']} complete, {counts['pruned']} pruned, {counts['fail']} failed"
    best, given = (f"{held[one]['value']:.4f}" for one in ("best", "default"))
    lines = [
        f"wrote {path}: trial {found['trial']} of {ended}",
        f"  mean R2 of return and direction on blocks {low} to {high}: {found['value']:.4f}",
        f"  on blocks {first} to {last}, which no trial saw: best {best}, given settings {given}",
        *(f"    {name:24}{value:9.4f}{held['default']['r2'][name]:9.4f}" for name, value in held["best"]["r2"].items()),
        f"  penstock-train fit TICKS --settings {path} --out MODEL.safetensors",
        "  No figure includes costs, latency or market impact: none of them is a profit.",
    ]
    return "\n".join(lines)
