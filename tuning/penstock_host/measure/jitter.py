"""``measure jitter``: for how long, and how often, each CPU is taken away from a program that never sleeps.

One child process per CPU, pinned to it, looks at the clock again and again (spin.py); all CPUs at once. A gap
is what lies between two looks beyond the threshold: an interrupt, a kernel thread, another program, the hypervisor,
the firmware. This is what hiccups and sysjitter measure, in plain Python: its own step is some 0.1 us, and stands in
the result as the floor.

    sum of a slice's gaps <= duration of the slice
    this process sleeps while the children measure
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from penstock_host.affinity import format_cpus
from penstock_host.measure.facts import host_facts
from penstock_host.measure.histogram import counted, merged
from penstock_host.measure.progress import Progress
from penstock_host.measure.result import JUDGED_US, Measurement, MeasurementError, Series, Slice

SLICE_S: Final = 0.5
SLICES_MIN: Final = 10
THRESHOLD_US: Final = 1.0
SECONDS_MAX: Final = 86_400.0

_SPIN: Final = Path(__file__).with_name("spin.py")
_START_S: Final = 0.3  # Children start Python, touch their memory and measure their floor.
_START_PER_CPU_S: Final = 0.1
_GRACE_S: Final = 30.0


def measure_jitter(
    cpus: frozenset[int],
    *,
    seconds: float,
    threshold_us: float = THRESHOLD_US,
    label: str = "",
    progress: Progress | None = None,
) -> Measurement:
    """Measure all of *cpus* at once for *seconds*.

    Args:
        cpus: of the host; this process goes to another one for as long, where there is one.
        seconds: for each CPU.
        threshold_us: gaps below it are not counted; at least four steps of the loop itself.
        label: the operator's word.
        progress: a bar; None for none.

    Raises:
        MeasurementError: a CPU can't be used, or an argument is out of range.
    """
    _check(cpus, seconds, threshold_us)
    slices = max(round(seconds / SLICE_S), SLICES_MIN)
    slice_ns = round(seconds * 1e9 / slices)
    taken = datetime.now(UTC).isoformat(timespec="milliseconds")
    facts = host_facts()
    with _stepped_aside(cpus) as watching_from:
        start_ns = time.monotonic_ns() + round((_START_S + _START_PER_CPU_S * len(cpus)) * 1e9)
        orders = [
            {
                "cpu": cpu,
                "start_ns": start_ns,
                "slice_ns": slice_ns,
                "slices": slices,
                "threshold_ns": round(threshold_us * 1000),
                "parent": os.getpid(),
            }
            for cpu in sorted(cpus)
        ]
        answers = _answers(orders, seconds + (start_ns - time.monotonic_ns()) / 1e9 + _GRACE_S, progress)
    return Measurement(
        kind="jitter",
        label=label,
        taken=taken,
        seconds=seconds,
        settings={"slice_ms": slice_ns / 1e6, "threshold_us": threshold_us},
        notes=tuple(_notes(answers, threshold_us, watching_from & cpus)),
        host=facts,
        series=tuple(_series(answer) for answer in answers),
    )


def cpu_name(cpu: int) -> str:
    """Return what the series of *cpu* is called."""
    return f"CPU {cpu}"


def _check(cpus: frozenset[int], seconds: float, threshold_us: float) -> None:
    if not cpus:
        raise MeasurementError("--cpus: want at least one CPU, was none; name some, such as --cpus 2-5")
    if not 0.1 <= seconds <= SECONDS_MAX:
        raise MeasurementError(f"--seconds: want 0.1 to {SECONDS_MAX:,.0f}, was {seconds:g}; ten minutes tell most")
    if not 0.1 <= threshold_us <= 1e6:
        raise MeasurementError(f"--threshold-us: want 0.1 to 1,000,000, was {threshold_us:g}; 1 sees every interrupt")


@contextlib.contextmanager
def _stepped_aside(cpus: frozenset[int]) -> Any:
    """Keep this process away from *cpus*, where it may go elsewhere; yield where it may run."""
    before = frozenset(os.sched_getaffinity(0))
    aside = before - cpus or frozenset({min(before)})
    os.sched_setaffinity(0, aside)
    try:
        yield aside
    finally:
        os.sched_setaffinity(0, before)


def _answers(orders: Sequence[dict[str, Any]], bound_s: float, progress: Progress | None) -> list[dict[str, Any]]:
    """Run a child for each order and return what they found, in the same order; no child is left behind."""
    deadline = time.monotonic() + bound_s
    children: list[subprocess.Popen[bytes]] = []
    found: dict[int, bytes] = {}
    try:
        with selectors.DefaultSelector() as waiting:
            for order in orders:
                child = subprocess.Popen(  # noqa: S603 - this interpreter, and a file of this folder.
                    [sys.executable, "-I", "-S", str(_SPIN), json.dumps(order)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                )
                children.append(child)
                assert child.stdout is not None
                waiting.register(child.stdout, selectors.EVENT_READ, (child, order["cpu"]))
            while waiting.get_map():
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    late = format_cpus(frozenset(key.data[1] for key in waiting.get_map().values()))
                    raise MeasurementError(
                        f"CPU {late}: want an answer within {bound_s:,.0f} s, was none; something holds the CPU, such as "
                        "a real-time thread: look with `ps -eLo psr,cls,rtprio,comm`"
                    )
                pause_s = left_s if progress is None or progress.wait_s is None else min(left_s, progress.wait_s)
                for key, _ in waiting.select(pause_s):
                    child, cpu = key.data
                    output, complaint = child.communicate()
                    waiting.unregister(key.fileobj)
                    found[cpu] = output or complaint
                if progress is not None:
                    progress.draw()
    finally:
        for child in children:
            child.kill()
            child.wait()
            for pipe in (child.stdout, child.stderr):
                if pipe is not None:
                    pipe.close()
    return [_parsed(found[order["cpu"]], order["cpu"]) for order in orders]


def _parsed(output: bytes, cpu: int) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = json.loads(output)
    except ValueError:
        said = output.decode(errors="replace").strip().splitlines()
        raise MeasurementError(f"{cpu_name(cpu)}: its measuring process ended: {said[-1] if said else ''}") from None
    if "error" in answer:
        raise MeasurementError(
            f"{cpu_name(cpu)}: want a CPU that this process may use, was refused: {answer['error']}; choose among "
            f"{format_cpus(frozenset(os.sched_getaffinity(0)))}, or leave the cpuset or container that hides it"
        )
    if not answer["slices"]:
        raise MeasurementError(f"{cpu_name(cpu)}: no slice was measured: it was taken away throughout; measure longer")
    return answer


def _series(answer: dict[str, Any]) -> Series:
    pieces = [
        Slice(
            duration_ns=duration_ns,
            count=len(gaps),
            sum_ns=sum(gaps),
            max_ns=max(gaps, default=0),
            over=sum(1 for gap in gaps if gap >= JUDGED_US * 1000),
        )
        for duration_ns, gaps in answer["slices"]
    ]
    return Series(
        name=cpu_name(answer["cpu"]),
        counts=merged(counted(gaps) for _, gaps in answer["slices"]),
        sum_ns=sum(piece.sum_ns for piece in pieces),
        max_ns=max(piece.max_ns for piece in pieces),
        duration_ns=sum(piece.duration_ns for piece in pieces),
        slices=tuple(pieces),
        floor_ns=answer["floor_ns"],
    )


def _notes(answers: Iterable[dict[str, Any]], threshold_us: float, shared: frozenset[int]) -> list[str]:
    answers = list(answers)
    step_us = max(answer["floor_ns"]["median"] for answer in answers) / 1000
    notes = [
        f"The method's own step is {step_us:.2f} us (median): gaps are known to about that, and shorter ones are not seen."
    ]
    raised = max(answer["threshold_ns"] for answer in answers) / 1000
    if raised > threshold_us:
        notes.append(f"The threshold was raised from {threshold_us:g} to {raised:.2f} us: four of the method's steps.")
    if shared:
        notes.append(
            f"CPU {format_cpus(shared)} also ran the process that waits for the result, since every allowed CPU was "
            "measured; a gap or two are its own. Leave one out with --cpus to have none."
        )
    if any(answer["orphaned"] for answer in answers):
        notes.append("It ended early: the measuring process's parent went away.")
    return notes
