"""The predictions of a replay as a file: Parquet or CSV with named columns, or ``.npy`` with the records themselves."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import numpy as np

from penstock.v1.records import PROBABILITY_ONE, STAGES_IN_RECORD, Stage
from penstock_client.errors import LocalUsageError
from penstock_client.extras import require
from penstock_client.replay import ReplayRun

SUFFIXES: Final = (".parquet", ".csv", ".npy")
_PLAIN: Final = (
    "sequence", "ts_event", "ts_recv", "instrument_id", "model_serial", "flags", "clock", "batch", "received_ns",
    "wire_ns",
)  # fmt: skip


def check_output_name(path: str) -> None:
    """Refuse a name that can't be written, before the replay.

    Raises:
        LocalUsageError: another suffix, or a folder that isn't there.
    """
    if not path.endswith(SUFFIXES):
        raise LocalUsageError(f"--out must end in one of {', '.join(SUFFIXES)}: out={path!r}")
    if not Path(path).resolve().parent.is_dir():
        raise LocalUsageError(f"--out must be in a folder that is there: out={path!r}; make the folder first")


def write_predictions(path: str, run: ReplayRun) -> None:
    """Write every prediction of *run* in the order of the session.

    A table has the record's fields, ``symbol``, ``latency_ns`` (due to answered), one ``stage_*_ns`` per stage, and
    per horizon its expected return, deviation (fractions) and probabilities (0 to 1) under the horizon's name.

    Raises:
        LocalUsageError: the file can't be written.
        MissingExtraError: penstock[files] is not installed, and it is no ``.npy``.
    """
    predictions = run.predictions[: run.sent][run.predicted[: run.sent]]
    scratch = Path(path).with_name(f".{Path(path).name}.{os.getpid()}")
    try:
        if path.endswith(".npy"):
            with scratch.open("wb") as file:
                np.save(file, predictions, allow_pickle=False)
        elif path.endswith(".parquet"):
            parquet = require("pyarrow.parquet", extra="files", purpose="writing Parquet files")
            parquet.write_table(_table(run, predictions), os.fspath(scratch), compression="zstd")
        else:
            csv = require("pyarrow.csv", extra="files", purpose="writing CSV files")
            csv.write_csv(_table(run, predictions), os.fspath(scratch))
        scratch.replace(path)
    except OSError as exc:
        scratch.unlink(missing_ok=True)
        raise LocalUsageError(f"--out can't be written: out={path!r}: {exc.strerror or exc}") from exc


def _table(run: ReplayRun, predictions: Any) -> Any:
    pyarrow = require("pyarrow", extra="files", purpose="writing tables of predictions")
    symbols = {one.instrument_id: one.symbol for one in run.plan.instruments}
    ids, index = np.unique(predictions["instrument_id"], return_inverse=True)
    columns: dict[str, Any] = {name: pyarrow.array(np.ascontiguousarray(predictions[name])) for name in _PLAIN}
    columns["symbol"] = pyarrow.array([symbols.get(one, "") for one in ids.tolist()], pyarrow.string()).take(
        pyarrow.array(index.reshape(-1))
    )
    predicted = run.predicted[: run.sent]
    columns["latency_ns"] = pyarrow.array((run.received_ns[: run.sent] - run.scheduled_ns[: run.sent])[predicted])
    for stage in list(Stage)[:STAGES_IN_RECORD]:
        columns[f"stage_{stage.name.lower()}_ns"] = pyarrow.array(
            np.ascontiguousarray(predictions["stage_ns"][:, stage])
        )
    for position, horizon in enumerate(run.welcome.horizons):
        forecast = predictions["forecasts"][:, position]
        for name in ("expected_return", "deviation"):
            columns[f"{horizon.name}_{name}"] = pyarrow.array(np.ascontiguousarray(forecast[name]))
        for name in ("probability_up", "probability_down"):
            columns[f"{horizon.name}_{name}"] = pyarrow.array(forecast[name] / np.float64(PROBABILITY_ONE))
    return pyarrow.table(columns)
