"""``measure path``: how long real ticks take inside the running daemon, stage by stage.

The daemon times every tick itself; this asks it what each second added, through the command of the installed client
(``penstock latency``), in a process of its own. So the host part needs no gRPC, and a bare host hears what is missing.
Ticks must come meanwhile: a strategy's own, or a replay.

    a slice is one interval of the daemon's histograms; one without ticks is no slice
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from penstock_host.faults import AbsentError, UnreadableError
from penstock_host.measure.facts import host_facts
from penstock_host.measure.histogram import OVERFLOW_BUCKET, count_from, lower_edge_ns, merged, quantile_ns
from penstock_host.measure.result import JUDGED_US, Measurement, MeasurementError, Series, Slice
from penstock_host.runner import Runner

STAGES: Final = ("TOTAL", "RECEIVE", "RING", "FEATURES", "UPLOAD", "PREDICT", "DOWNLOAD", "EGRESS")
INTERVAL_S: Final = 0.5
_INTERVALS_MIN: Final = 10
_INTERVAL_S_MIN: Final = 0.1  # The daemon's own.
_GRACE_S: Final = 30.0
_USUAL: Final = ("GRPC", "REALTIME")


def measure_path(runner: Runner, *, seconds: float, address: str = "", label: str = "") -> Measurement:
    """Ask the daemon at *address* for its stages over *seconds*.

    Args:
        runner: of external commands.
        seconds: how long; ticks must come meanwhile.
        address: as `penstock --to` takes it; "" for where a daemon without a configuration listens.
        label: the operator's word.

    Raises:
        MeasurementError: there is no client, no daemon, or no tick.
    """
    if not 1.0 <= seconds <= 86_400.0:
        raise MeasurementError(f"--seconds: want 1 to 86,400, was {seconds:g}; a minute of ticks tells most")
    intervals = max(round(seconds / INTERVAL_S), _INTERVALS_MIN)
    interval_s = max(seconds / intervals, _INTERVAL_S_MIN)
    command = [
        client_command(runner),
        "latency",
        "--json",
        "--seconds",
        f"{seconds:g}",
        "--interval",
        f"{interval_s:g}",
    ]
    command += ["--to", address] if address else []
    taken = datetime.now(UTC).isoformat(timespec="milliseconds")
    facts = host_facts()
    try:
        outcome = runner.run(command, timeout_s=seconds + _GRACE_S)
    except AbsentError as absent:
        raise MeasurementError(
            "measure path: want the client `penstock`, was not found; `pip install penstock` beside this, or run it from "
            "the environment that has it. `measure jitter` needs nothing"
        ) from absent
    except UnreadableError as fault:
        raise MeasurementError(f"measure path: {fault}; run `{' '.join(command)}` by hand to see why") from fault
    if not outcome.worked:
        said = (outcome.errors or outcome.output).strip().splitlines()
        if any("invalid choice: 'latency'" in line for line in said):
            raise MeasurementError("measure path: want a `penstock` that knows `latency`, was an older one; upgrade it")
        raise MeasurementError(f"measure path: {said[-1] if said else f'penstock exited {outcome.exit_status}'}")
    return Measurement(
        kind="path",
        label=label,
        taken=taken,
        seconds=seconds,
        settings={"slice_ms": interval_s * 1000},
        notes=("Timed by the daemon itself; a slice's longest is known to its histogram's three digits.",),
        host=facts,
        series=tuple(parse_latency(outcome.output, round(interval_s * 1e9))),
    )


def client_command(runner: Runner) -> str:
    """Return the client beside this interpreter, where there is one, else the one on the path."""
    beside = Path(sys.executable).with_name("penstock")
    return str(beside) if beside.is_file() and runner.has(str(beside)) else "penstock"


def parse_latency(output: str, interval_ns: int) -> list[Series]:
    """Return a series per stage (and path and pace, where they are not the usual ones), TOTAL first.

    Raises:
        MeasurementError: it is not what `penstock latency --json` prints, or no tick came.
    """
    try:
        found = json.loads(output)
        pieces: dict[tuple[str, str, str], list[dict[int, int]]] = {}
        sums_ns: dict[tuple[str, str, str], list[int]] = {}
        for interval in found["intervals"]:
            for one in interval["histograms"]:
                key = (str(one["stage"]), str(one["path"]), str(one["pace"]))
                counts = dict(zip(map(int, one["buckets"]), map(int, one["counts"]), strict=True))
                if sum(counts.values()):
                    pieces.setdefault(key, []).append(counts)
                    sums_ns.setdefault(key, []).append(int(one["sum_ns"]))
        bounds = {(one["stage"], one["path"]): int(one["bound_ns"]) for one in found["budgets"]}
    except (ValueError, KeyError, TypeError, AttributeError) as fault:
        raise MeasurementError(
            f"measure path: want the JSON of `penstock latency`, was something else: {fault!r}"
        ) from fault
    if not pieces:
        raise MeasurementError(
            "measure path: want ticks meanwhile, was none; let a strategy send, or `penstock replay FILE`, and ask again"
        )
    return [
        _series(key, pieces[key], sums_ns[key], interval_ns, bounds)
        for key in sorted(pieces, key=lambda key: (key[1:] != _USUAL, key[1:], _order(key[0])))
    ]


def _series(
    key: tuple[str, str, str],
    pieces: list[dict[int, int]],
    sums_ns: list[int],
    interval_ns: int,
    bounds: Mapping[tuple[str, str], int],
) -> Series:
    stage, path, pace = key
    slices = tuple(
        Slice(
            duration_ns=interval_ns,
            count=sum(counts.values()),
            sum_ns=sum_ns,
            max_ns=_upper_edge_ns(max(counts)),
            over=count_from(counts, JUDGED_US * 1000),
            p50_ns=quantile_ns(counts, 0.5),
            p99_ns=quantile_ns(counts, 0.99),
        )
        for counts, sum_ns in zip(pieces, sums_ns, strict=True)
    )
    extra: dict[str, Any] = {"path": path, "pace": pace}
    if (stage, path) in bounds:
        extra["budget_us"] = bounds[stage, path] / 1000
    return Series(
        name=stage if (path, pace) == _USUAL else f"{stage} {path} {pace}",
        counts=merged(pieces),
        sum_ns=sum(sums_ns),
        max_ns=max(piece.max_ns for piece in slices),
        duration_ns=0,  # Ticks overlap: they share out no time.
        slices=slices,
        extra=extra,
    )


def _upper_edge_ns(bucket: int) -> int:
    """Return what a duration of *bucket* is at most; the last bucket has no end."""
    return lower_edge_ns(min(bucket + 1, OVERFLOW_BUCKET))


def _order(stage: str) -> int:
    return STAGES.index(stage) if stage in STAGES else len(STAGES)
