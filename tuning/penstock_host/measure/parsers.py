"""What cyclictest, oslat, rtla and hwlatdetect print, as series.

The forms are those of rt-tests 2.x (JSON, format 1; hwlatdetect's text) and of rtla as the kernel's own pages show it.
Anything else is a ``ValueError`` that says what was missing: a half-read table would be a wrong figure.

    a count beyond a tool's last bucket stands in the bucket of its longest, never in none
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from penstock_host.measure.histogram import bucket_of
from penstock_host.measure.jitter import cpu_name
from penstock_host.measure.result import Series

_OSNOISE_ROW: Final = re.compile(
    r"\s*(?P<cpu>\d+)\s+#(?P<periods>\d+)\s+(?P<runtime_us>\d+)\s+(?P<noise_us>\d+)\s+(?P<available>[\d.]+)"
    r"\s+(?P<max_noise_us>\d+)\s+(?P<max_single_us>\d+)(?P<sources>(\s+\d+)*)\s*\Z"
)
_OSNOISE_SOURCES: Final = ("hardware", "nmi", "irq", "softirq", "thread")
_TIMERLAT_NAMES: Final = {"IRQ": "interrupt", "Thr": "thread", "Usr": "user"}
_LOOP_US: Final = 1  # oslat's first bucket is its own loop.


def parse_cyclictest(output: str) -> list[Series]:
    """Return a series per thread of ``cyclictest --json``: how late each wake-up was.

    Raises:
        ValueError: the output is not that.
    """
    found = []
    for thread in _threads(output).values():
        counts = _microseconds(thread["histogram"]) if "histogram" in thread else {}
        longest_ns = int(thread["max"]) * 1000
        beyond = int(thread["cycles"]) - sum(counts.values())
        if beyond > 0:
            counts[bucket_of(longest_ns)] = counts.get(bucket_of(longest_ns), 0) + beyond
        found.append(
            Series(
                name=cpu_name(int(thread["cpu"])),
                counts=counts,
                sum_ns=round(float(thread["avg"]) * int(thread["cycles"]) * 1000),
                max_ns=longest_ns,
                duration_ns=0,
                extra={"min_us": thread["min"], "avg_us": thread["avg"], "cycles": thread["cycles"]},
            )
        )
    return found


def parse_oslat(output: str) -> list[Series]:
    """Return a series per CPU of ``oslat --json``: gaps of its loop, without the loop itself.

    Raises:
        ValueError: the output is not that.
    """
    found = []
    for thread in _threads(output).values():
        gaps = {int(key): int(count) for key, count in thread["histogram"].items() if int(key) > _LOOP_US and count}
        longest_us = int(thread["max"])
        last = max(gaps, default=0)
        counts = _microseconds(gaps)
        if gaps and longest_us > last:  # The last bucket holds all that is longer: at least one is the longest.
            counts[bucket_of(last * 1000)] -= 1
            counts[bucket_of(longest_us * 1000)] = counts.get(bucket_of(longest_us * 1000), 0) + 1
        found.append(
            Series(
                name=cpu_name(int(thread["cpu"])),
                counts={bucket: count for bucket, count in counts.items() if count},
                sum_ns=sum(key * count * 1000 for key, count in gaps.items()) + max(longest_us - last, 0) * 1000,
                max_ns=longest_us * 1000,
                duration_ns=round(float(thread["duration"]) * 1e9),
                extra={"min_us": thread["min"], "avg_us": thread["avg"], "counter_mhz": thread["freq"]},
            )
        )
    return found


def parse_osnoise(output: str) -> list[Series]:
    """Return a series per CPU of ``rtla osnoise top -q``: time taken, the longest, and by whom.

    Raises:
        ValueError: the output has no such table.
    """
    found = []
    for line in output.splitlines():
        row = _OSNOISE_ROW.match(line)
        if row is None:
            continue
        sources = dict(zip(_OSNOISE_SOURCES, map(int, row["sources"].split()), strict=False))
        found.append(
            Series(
                name=cpu_name(int(row["cpu"])),
                counts={},
                sum_ns=int(row["noise_us"]) * 1000,
                max_ns=int(row["max_single_us"]) * 1000,
                duration_ns=int(row["runtime_us"]) * 1000,
                extra={"max_noise_of_a_period_us": int(row["max_noise_us"]), "sources": sources},
            )
        )
    if not found:
        raise ValueError("no row of CPUs in its summary")
    return found


def parse_timerlat(output: str) -> list[Series]:
    """Return a series per column of ``rtla timerlat hist``: how late the timer's interrupt and its thread were.

    Raises:
        ValueError: the output has no such table, or its unit is not microseconds.
    """
    columns: list[str] = []
    rows: dict[str, list[int]] = {}
    for line in output.splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            if "nanoseconds" in line:
                raise ValueError("its unit is nanoseconds, not microseconds")
        elif words[0] == "Index":
            columns = words[1:]
        elif columns and len(words) == len(columns) + 1 and all(word.isdigit() for word in words[1:]):
            rows[words[0].rstrip(":")] = [int(word) for word in words[1:]]
    if not columns or "max" not in rows:
        raise ValueError("no table that begins with Index and ends with max")
    return [_timerlat_series(name, place, rows) for place, name in enumerate(columns)]


def parse_hwlatdetect(output: str) -> list[Series]:
    """Return one series of ``hwlatdetect``: gaps while no interrupt could come, so of hardware and firmware.

    Raises:
        ValueError: the output is not that.
    """
    longest = re.search(r"^Max Latency:\s*(?:(\d+)us|Below threshold)", output, re.MULTILINE)
    samples = re.search(r"^Samples exceeding threshold:\s*(\d+)", output, re.MULTILINE)
    if longest is None or samples is None:
        raise ValueError("no line of Max Latency and of Samples exceeding threshold")
    gaps_us = [max(int(one), int(other)) for one, other in re.findall(r"inner:\s*(\d+),\s*outer:\s*(\d+)", output)]
    counts: dict[int, int] = {}
    for gap_us in gaps_us:
        counts[bucket_of(gap_us * 1000)] = counts.get(bucket_of(gap_us * 1000), 0) + 1
    extra: dict[str, Any] = {"samples_exceeding": int(samples[1])}
    smis = re.search(r"^SMIs during run:\s*(\d+)", output, re.MULTILINE)
    if smis:
        extra["smis"] = int(smis[1])
    return [
        Series(
            name="hardware",
            counts=counts,
            sum_ns=sum(gaps_us) * 1000,
            max_ns=int(longest[1] or 0) * 1000,
            duration_ns=0,
            extra=extra,
        )
    ]


def _threads(output: str) -> dict[str, Any]:
    """Return the threads of rt-tests' JSON; other lines may stand around it."""
    first, last = output.find("{"), output.rfind("}")
    try:
        threads = dict(json.loads(output[first : last + 1])["thread"])
    except (ValueError, KeyError, TypeError) as fault:
        raise ValueError(f"no JSON of rt-tests with threads ({fault})") from fault
    if not threads:
        raise ValueError("no thread in its JSON")
    return threads


def _microseconds(histogram: Mapping[Any, Any]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for key, count in histogram.items():
        bucket = bucket_of(int(key) * 1000)
        counts[bucket] = counts.get(bucket, 0) + int(count)
    return counts


def _timerlat_series(column: str, place: int, rows: Mapping[str, list[int]]) -> Series:
    kind, _, cpu = column.partition("-")
    if kind not in _TIMERLAT_NAMES or not cpu.isdigit():
        raise ValueError(f"a column of the name {column}")
    longest_us = rows["max"][place]
    counts = _microseconds({index: row[place] for index, row in rows.items() if index.isdigit() and row[place]})
    beyond = rows.get("over", [0] * (place + 1))[place]
    if beyond:
        counts[bucket_of(longest_us * 1000)] = counts.get(bucket_of(longest_us * 1000), 0) + beyond
    total = rows.get("count", [0] * (place + 1))[place]
    average_us = rows.get("avg", [0] * (place + 1))[place]
    return Series(
        name=f"{cpu_name(int(cpu))} {_TIMERLAT_NAMES[kind]}",
        counts=counts,
        sum_ns=average_us * total * 1000,
        max_ns=longest_us * 1000,
        duration_ns=0,
        extra={"avg_us": average_us},
    )
