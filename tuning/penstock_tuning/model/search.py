"""Search over the settings of a model: Optuna draws, processes try, one journal file remembers.

    value of a trial: run_trial over the first SEARCH_BLOCKS blocks; the others are looked at once, in the end
    OUT.study keeps every trial that was told of, whatever stops the search; --resume goes on from it

A trial that is below the median of the others after a block is pruned there. With one worker the same seed gives the
same trials; several share what they learn as it comes. Another way to run trials elsewhere needs ``run_trial`` and an
Optuna storage that both sides reach.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from penstock_client.extras import require
from penstock_kernels.model import ModelError
from penstock_tuning.model.checkpoint import key_of
from penstock_tuning.model.errors import TrainingError
from penstock_tuning.model.progress import Progress, silent
from penstock_tuning.model.recordings import open_recordings
from penstock_tuning.model.ridge import RidgeError
from penstock_tuning.model.search_space import Space, draw_settings, draws_of, settings_of_draws
from penstock_tuning.model.setting_options import settings_as_json
from penstock_tuning.model.settings import BLOCKS, FIRST_TEST, SEARCH_BLOCKS, FitSettings
from penstock_tuning.model.trial import held_out, past_of, run_trial

STUDY: Final = "penstock"
SUFFIX: Final = ".study"
TRIALS_MAX: Final = 100_000
WORKERS_MAX: Final = 256
STARTUP_TRIALS: Final = 4  # Before any is pruned.
_POLL_S: Final = 0.2
_PURPOSE: Final = "penstock-train search"


@dataclass(frozen=True)
class Job:
    """What a worker needs; all of it travels to another process."""

    files: tuple[str, ...]
    columns: str | None
    wanted: tuple[str, ...]
    base: FitSettings
    units: tuple[int, ...]
    study_file: str
    seed: int


def search(
    job: Job,
    trials: int,
    workers: int,
    *,
    resume: bool = False,
    on_progress: Progress = silent,
) -> dict[str, Any]:
    """Run trials until *trials* have ended, and return what was found, as JSON.

    Raises:
        TrainingError: a number is impossible, the files can't be trained on, the study file is of another search, or
            a worker failed.
        TickFileError: a file is no sound tick file.
        MissingExtraError: Optuna is not installed.
    """
    if not 1 <= trials <= TRIALS_MAX:
        raise TrainingError(f"trials must be 1 to {TRIALS_MAX}: trials={trials}; 50 is a start")
    if not 1 <= workers <= WORKERS_MAX:
        raise TrainingError(f"workers must be 1 to {WORKERS_MAX}: workers={workers}; one per core is usual")
    optuna = _optuna()
    recordings = open_recordings(job.files, job.columns, job.wanted, on_progress)
    past = past_of(recordings, job.base.horizons)
    space = Space(job.units, len(past.found.features))
    told = [key_of(recordings, job.base), list(job.units), job.seed]
    key = hashlib.sha256(json.dumps(told).encode()).hexdigest()
    study = _open_study(optuna, job, key, resume=resume)
    if not study.trials:
        study.enqueue_trial(draws_of(job.base, space))
    left = trials - _ended(optuna, study)
    if left > 0:
        _run_workers(
            optuna,
            job,
            study,
            [left // workers + (one < left % workers) for one in range(workers)],
            trials,
            on_progress,
        )
    complete = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if not complete:
        raise TrainingError(
            f"no trial was completed: trials={len(study.trials)}; every draw failed or was pruned: try more, or other --units"
        )
    best = max(complete, key=lambda one: (one.value, -one.number))
    settings = settings_of_draws(best.params, job.base, space)
    on_progress("blocks held out", 0, 2)
    found = held_out(settings, recordings, BLOCKS)
    on_progress("blocks held out", 1, 2)
    usual = held_out(job.base, recordings, BLOCKS)
    on_progress("blocks held out", 2, 2)
    states = [one.state.name.lower() for one in study.get_trials(deepcopy=False)]
    return {
        "settings": settings_as_json(settings),
        "value": float(f"{best.value:.6g}"),
        "trial": best.number,
        "trials": {name: states.count(name) for name in ("complete", "pruned", "fail")},
        "protocol": {
            "value": "mean R2 of return and direction over the horizons, pooled over blocks, each foretold by earlier ones",
            "searched_blocks": [FIRST_TEST + 1, SEARCH_BLOCKS],
            "held_out_blocks": [SEARCH_BLOCKS + 1, BLOCKS],
        },
        "held_out": {"best": found, "default": usual},
        "data": [{"name": one.name, "sha256": one.sha256, "ticks": one.ticks} for one in recordings.all],
        "seed": job.seed,
    }


def _open_study(optuna: Any, job: Job, key: str, *, resume: bool) -> Any:
    """Return the study of *job*, new or resumed."""
    path = Path(job.study_file)
    if path.exists() and not resume:
        raise TrainingError(f"{path} holds an earlier search; give --resume to go on with it, or remove it")
    try:
        study = optuna.create_study(
            storage=_storage(optuna, job),
            study_name=STUDY,
            direction="maximize",
            load_if_exists=True,
            sampler=optuna.samplers.TPESampler(seed=job.seed),
        )
        known = study.user_attrs.get("key")
    except (OSError, ValueError, KeyError, AttributeError) as exc:
        raise TrainingError(f"{path} is no study of a search: {exc}; remove it, or name another --out") from exc
    if known not in (None, key):
        raise TrainingError(
            f"{path} is of other files, settings or another version; give the same ones, or remove it: key={known[:16]}, "
            f"wanted={key[:16]}"
        )
    study.set_user_attr("key", key)
    for one in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(one.number, state=optuna.trial.TrialState.FAIL)  # Its worker was stopped.
    return study


def _run_workers(optuna: Any, job: Job, study: Any, shares: Sequence[int], trials: int, on_progress: Progress) -> None:
    """Run one process per share of trials and wait for all of them; stop them all where one fails."""
    context = multiprocessing.get_context("spawn")
    failures = context.SimpleQueue()
    workers = [
        context.Process(target=_work, args=(replace(job, seed=job.seed + index), share, failures), daemon=True)
        for index, share in enumerate(shares)
        if share
    ]
    for one in workers:
        one.start()
    try:
        while any(one.is_alive() for one in workers):
            on_progress("trials", min(trials, _ended(optuna, study)), trials)
            time.sleep(_POLL_S)
            if any(one.exitcode not in (None, 0) for one in workers):
                break
    finally:
        for one in workers:
            if one.is_alive() and one.pid is not None:
                os.kill(one.pid, signal.SIGINT)  # It ends its trial at the next block; the study stays whole.
        for one in workers:
            one.join(timeout=10.0)
            one.kill()
    on_progress("trials", min(trials, _ended(optuna, study)), trials)
    if not failures.empty():
        raise TrainingError(failures.get())
    codes = [one.exitcode for one in workers]
    if any(codes):
        raise TrainingError(f"a worker of the search ended early: exit codes={codes}; --resume goes on without it")


def _work(job: Job, trials: int, failures: Any) -> None:
    """Try so many settings, in a process of its own.

    An interrupt is heeded between two blocks of a trial: inside a library it could come at any line.
    """
    stopped = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: stopped.set())
    optuna = _optuna()
    try:
        past = past_of(open_recordings(job.files, job.columns, job.wanted), job.base.horizons)
        space = Space(job.units, len(past.found.features))
        study = optuna.load_study(
            study_name=STUDY,
            storage=_storage(optuna, job),
            sampler=optuna.samplers.TPESampler(seed=job.seed),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS),
        )

        def objective(trial: Any) -> float:
            def after_block(block: int, value: float) -> None:
                if stopped.is_set():
                    signal.default_int_handler(signal.SIGINT, None)  # Raises KeyboardInterrupt.
                trial.report(value, block)
                if trial.should_prune():
                    raise optuna.TrialPruned

            return run_trial(draw_settings(trial, job.base, space), past, after_block)

        study.optimize(objective, n_trials=trials, catch=(ModelError, RidgeError, TrainingError))
    except KeyboardInterrupt:
        return
    except (ValueError, OSError) as exc:
        failures.put(str(exc))


def _ended(optuna: Any, study: Any) -> int:
    state = optuna.trial.TrialState
    return len(study.get_trials(deepcopy=False, states=(state.COMPLETE, state.PRUNED)))


def _storage(optuna: Any, job: Job) -> Any:
    return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(job.study_file))


def _optuna() -> Any:
    optuna = require("optuna", extra="train", purpose=_PURPOSE)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
