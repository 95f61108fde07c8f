"""The measuring tools that others wrote, where they are installed: started for a bounded time, and read.

    cyclictest, oslat, hwlatdetect   rt-tests
    rtla osnoise, rtla timerlat      rtla, of the kernel's own tree

A tool that is missing is a sentence that says how to get it. What a tool does to the CPUs that it measures is part of
its record here, since a daemon may be serving on them.

    a tool is started with the runner, never with a shell, and is killed when it does not end by itself
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from penstock_host.affinity import format_cpus
from penstock_host.faults import AbsentError, UnreadableError
from penstock_host.measure.facts import host_facts
from penstock_host.measure.parsers import (
    parse_cyclictest,
    parse_hwlatdetect,
    parse_oslat,
    parse_osnoise,
    parse_timerlat,
)
from penstock_host.measure.result import Measurement, MeasurementError, Series
from penstock_host.runner import Runner

_GRACE_S: Final = 30.0
SECONDS_MAX: Final = 86_400
THRESHOLD_US: Final = 10  # hwlatdetect's own default.


@dataclass(frozen=True)
class Tool:
    """A measuring tool.

    Attributes:
        name: the verb of ``measure``.
        words: what it finds out.
        command: CPUs (as the kernel writes them), how many, seconds; to words.
        parse: its output to series.
        packages: where it is from.
        stops_cpus: interrupts are off while it looks: never while a daemon serves.
        fills_cpus: it takes all of a CPU's time: not on a daemon's CPUs.
    """

    name: str
    words: str
    command: Callable[[str, int, int], list[str]]
    parse: Callable[[str], list[Series]]
    packages: str
    stops_cpus: bool = False
    fills_cpus: bool = False


def _cyclictest(cpus: str, number: int, seconds: int) -> list[str]:
    # The histogram goes to the JSON alone; --default-system keeps it from holding C-states off by itself, which
    # would hide what is measured.
    words = ["cyclictest", "-m", "-q", "-p95", "-a", cpus, "-t", str(number), "-i", "1000", "-D", str(seconds)]
    return [*words, "-h", "5000", "--histfile=/dev/null", "--default-system", "--json=/dev/stdout"]


def _oslat(cpus: str, _number: int, seconds: int) -> list[str]:
    return ["oslat", "-q", "-c", cpus, "-D", str(seconds), "-b", "1024", "--json=/dev/stdout"]


def _osnoise(cpus: str, _number: int, seconds: int) -> list[str]:
    return ["rtla", "osnoise", "top", "-q", "-c", cpus, "-d", f"{seconds}s"]


def _timerlat(cpus: str, _number: int, seconds: int) -> list[str]:
    return ["rtla", "timerlat", "hist", "-c", cpus, "-d", f"{seconds}s", "-E", "5000"]


def _hwlatdetect(_cpus: str, _number: int, seconds: int) -> list[str]:
    return ["hwlatdetect", f"--duration={seconds}", f"--threshold={THRESHOLD_US}"]


_RT_TESTS: Final = "rt-tests (apt install rt-tests; dnf install realtime-tests)"
_RTLA: Final = "rtla (apt install rtla, or linux-tools of your kernel; dnf install rtla)"

TOOLS: Final = {
    tool.name: tool
    for tool in (
        Tool("cyclictest", "how late a real-time thread wakes up", _cyclictest, parse_cyclictest, _RT_TESTS),
        Tool("oslat", "gaps of a busy loop, in C", _oslat, parse_oslat, _RT_TESTS, fills_cpus=True),
        Tool("rtla-osnoise", "time taken from a CPU, and by whom", _osnoise, parse_osnoise, _RTLA, fills_cpus=True),
        Tool("rtla-timerlat", "how late a timer's interrupt and thread are", _timerlat, parse_timerlat, _RTLA),
        Tool(
            "hwlatdetect",
            "gaps of hardware and firmware (SMIs), with interrupts off",
            _hwlatdetect,
            parse_hwlatdetect,
            _RT_TESTS,
            stops_cpus=True,
            fills_cpus=True,
        ),
    )
}


def measure_with(tool: Tool, runner: Runner, cpus: frozenset[int], *, seconds: float, label: str = "") -> Measurement:
    """Run *tool* over *cpus* for *seconds*, whole ones, and return what it found.

    Raises:
        MeasurementError: it is not installed, failed, took too long, or said what nobody understands.
    """
    if not cpus:
        raise MeasurementError("--cpus: want at least one CPU, was none; name some, such as --cpus 2-5")
    if not 1 <= seconds <= SECONDS_MAX:
        raise MeasurementError(f"--seconds: want 1 to {SECONDS_MAX:,}, was {seconds:g}; ten minutes tell most")
    whole = round(seconds)
    command = tool.command(format_cpus(cpus), len(cpus), whole)
    taken = datetime.now(UTC).isoformat(timespec="milliseconds")
    facts = host_facts()
    try:
        outcome = runner.run(command, timeout_s=whole + _GRACE_S)
    except AbsentError as absent:
        raise MeasurementError(
            f"measure {tool.name}: want {command[0]} installed, was not found; install {tool.packages}, or take "
            "`measure jitter`, which needs nothing"
        ) from absent
    except UnreadableError as fault:
        raise MeasurementError(f"measure {tool.name}: {fault}; run `{' '.join(command)}` by hand to see why") from fault
    try:
        series = tool.parse(outcome.output)
    except (ValueError, KeyError, TypeError) as fault:
        said = (outcome.errors or outcome.output).strip().splitlines()
        reason = f"exit status {outcome.exit_status}: {said[-1]}" if said and not outcome.worked else str(fault)
        raise MeasurementError(
            f"measure {tool.name}: want its results, was {reason}; run `{' '.join(command)}` by hand, as root"
        ) from fault
    return Measurement(
        kind=tool.name,
        label=label,
        taken=taken,
        seconds=float(whole),
        settings={"command": " ".join(command)},
        notes=(f"Measured by {command[0]}: {tool.words}.",),
        host=facts,
        series=tuple(series),
    )
