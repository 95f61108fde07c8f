"""``make gpu-check``: whether this machine's GPU does what penstock promises, in one command, one table and 8 minutes.

    agreement   tests of the bits, by graphs: what everything else stands on
    figures     penstock-bench gpu, with the aims beside them
    resident, engine, faults, daemon, readings      every other test marked gpu
    exit code   0 where every test passed, none was left out for want of a card, and the benchmark is complete

It needs Python, CuPy, NumPy, Numba, grpcio, protobuf and pytest, and neither an installed penstock nor a network: the
folders of this checkout are put on PYTHONPATH. Each part is a process with a limit of its own, so one that hangs or
breaks the card costs no other part. After each, gpu-check.json is written anew, so whoever stops this early has what
was found. A missed aim is printed and fails nothing: it is a figure, not a fault.

    python3 tuning/penstock_tuning/bench/gpu_check.py [--out FOLDER] [--quick]
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[3]
FOLDERS: Final = ("protos", "kernels", "daemon", "client", "tuning", "tests")
NO_GPU: Final = "no GPU"  # How the reason of a test begins that was skipped for want of one.
FIGURES: Final = "figures"
PARTS: Final = {  # In this order, what tells most first; each in so many seconds at most.
    "agreement": 110.0,
    FIGURES: 210.0,
    "resident": 100.0,
    "engine": 80.0,
    "faults": 60.0,
    "daemon": 60.0,
    "readings": 30.0,
}
TOTAL_S: Final = 440.0  # All of them; to stop the last one takes 20 more at most.
MODULES: Final = {"resident": "agreement"}  # Tests of which module, where it is not the part's own.
CHOSEN: Final = {"agreement": "not resident", "resident": "resident"}  # Which of its tests, as pytest's -k.
NEEDED: Final = (
    *(("numpy", "numpy"), ("numba", "numba"), ("grpc", "grpcio")),
    *(("google.protobuf", "protobuf"), ("pytest", "pytest")),
)  # Each module, and what it is installed as.
_STOPS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_LEAST_S: Final = 5.0  # A part that has less is not begun.
_BENCH_SPARE_S: Final = 20.0  # The benchmark stops by itself so much earlier, and prints what it has.
_STOP_TIMEOUT_S: Final = 10.0
_LAST_LINES: Final = 12
_PROGRESS: Final = re.compile(r"tests/\S+?::(.+?)(?: (PASSED|SKIPPED|FAILED|ERROR)\b.*)?")


@dataclass
class Part:
    """What one part came to.

    Attributes:
        name: of the part.
        failures: a phrase for each thing that is wrong.
        rows: of the table: what, how it went.
        found: for the JSON.
        no_card: there is none to be had, so no other part need begin.
    """

    name: str
    failures: list[str] = field(default_factory=list)
    rows: list[tuple[str, str]] = field(default_factory=list)
    found: dict[str, Any] = field(default_factory=dict)
    no_card: bool = False


@dataclass(frozen=True)
class Place:
    """Where a run keeps what it finds, and what it was asked for."""

    folder: Path
    quick: bool = False

    @property
    def log(self) -> Path:
        """What the parts said, one after the other."""
        return self.folder / "gpu-check.log"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all parts, print the table, and return the exit code."""
    parser = argparse.ArgumentParser(prog="make gpu-check", description="Check this machine's GPU: tests and figures.")
    parser.add_argument(
        "--out", type=Path, default=None, metavar="FOLDER", help="for what is found (default: $OUT, or none)"
    )
    parser.add_argument("--quick", action="store_true", help="few trips: to see that it works")
    options = parser.parse_args(arguments)
    out = options.out or (Path(os.environ["OUT"]) if os.environ.get("OUT") else None)
    if missing := missing_here():
        print(f"make gpu-check: {missing}", file=sys.stderr)
        return 2
    # A part that runs is ended, whoever ends us, and a lost terminal too; what nohup ignores stays ignored.
    before = {number: signal.getsignal(number) for number in _STOPS}
    for number in _STOPS:
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    try:
        with tempfile.TemporaryDirectory(prefix="penstock-gpu-check-") as name:
            folder = (out or Path(name)).absolute()
            try:
                folder.mkdir(parents=True, exist_ok=True)
                place = Place(folder, options.quick)
                place.log.write_bytes(b"")
            except OSError as exc:
                why = f"--out must be a folder that can be written, was {str(folder)!r}: {exc.strerror}; name another"
                print(f"make gpu-check: {why}", file=sys.stderr)
                return 2
            return check(place)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def missing_here() -> str:
    """Return what this Python lacks for any part to run, and the mend; empty for nothing. CuPy the first part asks for."""
    if sys.version_info < (3, 11):  # noqa: UP036 (a bare machine has whatever Python it came with)
        return f"want Python 3.11 or newer, was {sys.version_info[0]}.{sys.version_info[1]}; name another by PYTHON=python3.12"
    lacking = [package for module, package in NEEDED if not _is_there(module)]
    if not lacking:
        return ""
    return (
        f"{sys.executable} lacks {', '.join(lacking)}: {sys.executable} -m pip install {' '.join(lacking)}, or name a Python "
        "that has them by PYTHON="
    )


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # Of the package that it lies in.
        return False


def check(place: Place) -> int:
    """Run all parts in *place*, print the table, and return the exit code."""
    started_s = time.monotonic()
    parts: list[Part] = []
    try:
        for name, limit_s in PARTS.items():
            left_s = started_s + TOTAL_S - time.monotonic()
            if left_s < _LEAST_S:
                parts.append(Part(name, [f"{name}: not begun, since no time was left"]))
            else:
                parts.append(check_part(name, min(limit_s, left_s), place))
            elapsed_s = time.monotonic() - started_s
            ended = parts[-1].no_card or name == list(PARTS)[-1]
            save(place, parts, elapsed_s, ended=ended)
            print(f"--- {name}: {'FAILED' if parts[-1].failures else 'passed'}, {elapsed_s:.0f} s so far", flush=True)
            if ended:
                break
    except KeyboardInterrupt:
        parts += [Part(name, [f"{name}: stopped from outside"]) for name in list(PARTS)[len(parts) :][:1]]
        save(place, parts, time.monotonic() - started_s, ended=True)
    print(report(parts, time.monotonic() - started_s))
    return 1 if any(part.failures for part in parts) else 0


def check_part(name: str, timeout_s: float, place: Place) -> Part:
    """Run one part."""
    if name == FIGURES:
        return check_bench(timeout_s, place)
    return check_tests(name, timeout_s, place)


def save(place: Place, parts: Sequence[Part], elapsed_s: float, *, ended: bool) -> None:
    """Write gpu-check.json: all that was found, and first which tests passed and what failed; whole, or not at all."""
    failures = [failure for part in parts for failure in part.failures]
    cases = [case for part in parts for case in part.found.get("cases", [])]
    found: dict[str, Any] = {
        "verdict": "failed" if failures else "passed" if ended else "under way",
        "elapsed_s": round(elapsed_s, 1),
        "failures": failures,
        "passed": [case["name"] for case in cases if case["outcome"] == "passed"],
    }
    found |= {part.name: part.found | {"failures": part.failures} for part in parts}
    written = place.folder / "gpu-check.json.new"
    written.write_text(json.dumps(found, indent=2), encoding="utf-8")
    written.replace(place.folder / "gpu-check.json")


def check_tests(name: str, timeout_s: float, place: Place) -> Part:
    """Run the tests of one part."""
    part = Part(name)
    module = ROOT / "tests" / "gpu" / f"test_cuda_{MODULES.get(name, name)}.py"
    with tempfile.TemporaryDirectory(prefix="penstock-gpu-check-") as folder:
        results = Path(folder) / "results.xml"
        command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "tests" / "gpu" / "bare.ini"), f"--rootdir={ROOT}"]
        command += [str(module), "-m", "gpu", "-v", "-p", "no:cacheprovider", f"--junitxml={results}"]
        command += ["-k", CHOSEN[name]] if name in CHOSEN else []
        code, said = run(command, timeout_s, place.log)
        cases = read_results(results) or read_progress(said)
    part.found = {"cases": cases, "exit_code": code}
    judge_tests(part, cases, code, said, timeout_s)
    return part


def judge_tests(part: Part, cases: list[dict[str, str]], code: int | None, said: str, timeout_s: float) -> None:
    """Write rows and failures: all must pass, and a test that needs a card and got none is a failure here."""
    passed = sum(case["outcome"] == "passed" for case in cases)
    part.rows.append((f"{part.name}: tests passed", str(passed)))
    part.no_card = bool(cases) and all(case["why"].startswith(NO_GPU) for case in cases)
    alike: dict[tuple[str, str], list[str]] = {}
    for case in cases:
        if case["outcome"] != "passed":
            alike.setdefault((case["outcome"], case["why"]), []).append(case["name"])
    for (outcome, why), names in alike.items():
        which = names[0] if len(names) == 1 else f"{len(names)} tests, the first {names[0]}"
        if outcome == "failed" or why.startswith(NO_GPU):
            part.failures.append(f"{which}: {why}")
        else:
            part.rows.append((which, f"{outcome}: {why}"))
    if code is None:
        part.failures.append(f"{part.name}: the tests took longer than {timeout_s:.0f} s; see their last lines above")
    elif code != 0 and not part.failures:
        part.failures.append(f"{part.name}: pytest ended with {code}: {last_lines(said, 3)}")
    if not passed and not part.failures:
        part.failures.append(f"{part.name}: no test ran")


def check_bench(timeout_s: float, place: Place) -> Part:
    """Run the benchmark."""
    part = Part(FIGURES)
    found = place.folder / "gpu-findings.jsonl"
    command = [sys.executable, "-m", "penstock_tuning.bench.cli", "gpu", "--json", "--quiet", "--found", str(found)]
    command += ["--seconds", f"{max(timeout_s - _BENCH_SPARE_S, 10.0):.0f}", *(["--quick"] if place.quick else [])]
    code, said = run(command, timeout_s, place.log)
    judge_bench(part, code, said, timeout_s, found)
    return part


def judge_bench(part: Part, code: int | None, said: str, timeout_s: float, findings: Path | None = None) -> None:
    """Write rows and failures from what the benchmark printed, or, where it did not end, from its file of findings."""
    start = said.find("{")
    try:
        part.found = json.JSONDecoder().raw_decode(said, start)[0] if start >= 0 and code == 0 else {}
    except json.JSONDecodeError:
        part.found = {}
    if not part.found:
        why = f"took longer than {timeout_s:.0f} s" if code is None else f"ended with {code}"
        part.failures.append(f"penstock-bench gpu {why}: {last_lines(said, 3)}")
        part.found = _found_by_then(findings)
        if not part.found:
            return
    from penstock_tuning.bench.gpu import SHOWN, table
    from penstock_tuning.bench.outcome import number_text

    part.rows.append(("device", str(part.found.get("device"))))
    aims = part.found.get("aims", {})
    for key in SHOWN:
        value = part.found.get(key)
        if value is None:
            continue
        aim = aims.get(key)
        verdict = f"   aim {aim['aim']}: {'met' if aim['met'] else 'MISSED'}" if aim else ""
        part.rows.append((key, number_text(value) + verdict))
    part.found["table"] = table(part.found)
    if part.found.get("incomplete"):
        part.failures.append(f"the benchmark is incomplete: {part.found['incomplete']}")


def _found_by_then(findings: Path | None) -> dict[str, Any]:
    from penstock_tuning.bench.gpu import outcome_of, read_findings

    found = read_findings(findings) if findings is not None else []
    return outcome_of(found, quick=False).as_json({}) if found else {}


def report(parts: Sequence[Part], elapsed_s: float) -> str:
    """Return the one table that is printed last."""
    lines = ["", *next((part.found["table"] for part in parts if "table" in part.found), []), ""]
    lines += ["| gpu-check | |", "|---|---|"]
    lines += [f"| {what} | {how.replace('|', '/')} |" for part in parts for what, how in part.rows]
    lines += [f"| FAILED | {failure.replace('|', '/')} |" for part in parts for failure in part.failures]
    verdict = "failed" if any(part.failures for part in parts) else "passed"
    return "\n".join([*lines, f"| gpu-check {verdict} | {elapsed_s:.0f} s |"])


def run(command: Sequence[str], timeout_s: float, log: Path) -> tuple[int | None, str]:
    """Run *command* with our folders on its path, echo what it says, and stop it with all its children when time is up.

    Args:
        command: ours.
        timeout_s: until it is stopped.
        log: what it says is added there as it comes.

    Returns:
        Its exit code, None where it was stopped; and what it said.
    """
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([*(str(ROOT / folder) for folder in FOLDERS), os.environ.get("PYTHONPATH", "")]),
        "PYTHONUNBUFFERED": "1",
    }
    with log.open("a+b") as out:
        start = out.seek(0, os.SEEK_END)
        process = subprocess.Popen(  # noqa: S603 - Ours.
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
        try:
            code: int | None = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(process)
        out.seek(start)
        said = out.read().decode(errors="replace")
    print(said if code != 0 else last_lines(said, 1).replace(" | ", "\n"), flush=True)
    return code, said


def _interrupt(_number: int, _frame: object) -> None:
    for number in _STOPS:  # Once: who asks again does not get away with children left behind.
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and its children: they are a group of their own, and one of them may outlive it."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_TIMEOUT_S)
    # A group whose first process has ended keeps its number while anybody is left in it.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_TIMEOUT_S)


def read_results(path: Path) -> list[dict[str, str]]:
    """Return name, outcome and reason of each test in a JUnit file; nothing where there is no whole file."""
    try:
        tree = ET.parse(path)  # noqa: S314  # Written by our own pytest, a moment ago.
    except (OSError, ET.ParseError):
        return []
    cases = []
    for case in tree.iter("testcase"):
        outcome, why = "passed", ""
        for child in case:
            if child.tag in ("failure", "error", "skipped"):
                outcome = "skipped" if child.tag == "skipped" else "failed"
                why = " ".join((child.get("message") or child.text or "").split())[:300]
        cases.append({"name": case.get("name", ""), "outcome": outcome, "why": why})
    return cases


def read_progress(said: str) -> list[dict[str, str]]:
    """Return the same of what a verbose pytest had printed when it was stopped; the last test has no outcome yet."""
    cases = []
    for line in said.splitlines():
        if found := _PROGRESS.fullmatch(line.rstrip()):
            name, word = found.groups()
            outcome = {"PASSED": "passed", "SKIPPED": "skipped"}.get(word, "failed")
            cases.append({"name": name, "outcome": outcome, "why": "" if word else "not finished"})
    return cases


def last_lines(text: str, count: int = _LAST_LINES) -> str:
    """Return the last lines of *text* in one."""
    return " | ".join(text.strip().splitlines()[-count:])


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT / folder) for folder in FOLDERS]
    sys.exit(main())
