"""penstock-train evaluate: a model beside its baselines, or a model file as it is, on recorded ticks.

the report page is written aside and renamed; a name that can't be written is refused before the work
"""

from __future__ import annotations

import json
import os
from argparse import Namespace
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

from penstock_client.extras import require
from penstock_kernels.model_file import load_model
from penstock_tuning.model.errors import TrainingError
from penstock_tuning.model.evaluate import EvaluateSettings, evaluate
from penstock_tuning.model.evaluate_model import evaluate_model
from penstock_tuning.model.evaluation_page import page
from penstock_tuning.model.evaluation_text import evaluation_lines
from penstock_tuning.model.progress import Progress
from penstock_tuning.model.recordings import Recordings, open_recordings
from penstock_tuning.model.setting_options import KEYS, read_settings, settings_of

THREADS_MAX: Final = 256


def run_evaluate(options: Namespace, bars: Callable[[], AbstractContextManager[Progress]]) -> int:
    """Run the command and return its exit code.

    Args:
        options: of the command line.
        bars: gives a Progress to tell.
    """
    _check_page_name(options.report)
    if not 0 <= options.threads <= THREADS_MAX:
        raise TrainingError(f"threads must be 0 to {THREADS_MAX}: threads={options.threads}; 0 uses half the cores")
    wanted = [name.strip() for name in options.instruments.split(",") if name.strip()]
    limits = require("threadpoolctl", extra="train", purpose="penstock-train evaluate").threadpool_limits
    work: Callable[[Recordings, Progress], dict[str, Any]]
    if options.model:
        _check_no_settings(options)
        loaded = load_model(options.model)

        def work(recordings: Recordings, on_progress: Progress) -> dict[str, Any]:
            return evaluate_model(loaded, recordings, on_progress)

    else:
        asked = _settings(options)
        if "GB" in asked.baselines:
            require("sklearn", extra="train", purpose="the gradient boosting baseline")

        def work(recordings: Recordings, on_progress: Progress) -> dict[str, Any]:
            return evaluate(recordings, asked, on_progress)

    with bars() as on_progress, limits(limits=options.threads or _usual_threads()):
        report = work(open_recordings(options.ticks, options.columns, wanted, on_progress), on_progress)
    if options.report:
        _write(options.report, page(report))
    print(json.dumps(report, indent=2) if options.json else "\n".join(evaluation_lines(report)))
    return 0


def _usual_threads() -> int:
    """Return half the cores that this process may use: threads that wait for each other on busy ones take far longer."""
    return max(1, len(os.sched_getaffinity(0)) // 2)


def _settings(options: Namespace) -> EvaluateSettings:
    """Return what *options* say, then their settings file; as many horizons by flag as an evaluation may have."""
    told = read_settings(Path(options.settings)) if options.settings else {}
    given: dict[str, Any] = {"fit": settings_of(Namespace(**{**vars(options), "horizons": None}))}
    if options.horizons is not None:
        given["targets"] = options.horizons
    elif "horizons" in told:
        given["targets"] = ",".join(one.name for one in told["horizons"])
    if options.seeds is not None:
        given["seeds"] = _seeds(options.seeds)
    elif options.seed is not None:
        given["seeds"] = (options.seed,)
    elif "seed" in told:
        given["seeds"] = (told["seed"],)
    if options.baselines is not None:
        given["baselines"] = tuple(name.strip() for name in options.baselines.split(",") if name.strip())
    return EvaluateSettings(**given)


def _check_no_settings(options: Namespace) -> None:
    """Refuse settings beside a model file, which has its own."""
    for name in ("seeds", "baselines", "settings", "horizons", *KEYS, "time_constants", "penalty", "linear_penalty"):
        value = getattr(options, name, None)
        if value is not None:
            flag = name.replace("_", "-")
            raise TrainingError(f"a model file has settings of its own: {flag}={value}; leave out --{flag} or --model")
    if options.no_recurrence:
        raise TrainingError(
            "a model file has settings of its own: no-recurrence=true; leave out --no-recurrence or --model"
        )


def _seeds(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(one) for one in text.split(","))
    except ValueError as exc:
        raise TrainingError(f"seeds must be whole numbers, separated by commas: seeds={text!r}; write 1,2,3") from exc


def _check_page_name(name: str) -> None:
    if not name:
        return
    if not name.endswith(".html"):
        raise TrainingError(f"report must end in .html: report={name}; rename it")
    if Path(name).is_dir() or not Path(name).absolute().parent.is_dir():
        raise TrainingError(f"report must be a file in a folder that is there: report={name}; make the folder first")
    require("matplotlib", extra="report", purpose="drawing the report")


def _write(name: str, text: str) -> None:
    scratch = Path(name).with_name(f".{Path(name).name}.{os.getpid()}")
    try:
        scratch.write_text(text, encoding="utf-8")
        scratch.replace(name)
    except OSError as exc:
        scratch.unlink(missing_ok=True)
        raise TrainingError(f"report can't be written: report={name}: {exc.strerror}; choose another place") from exc
