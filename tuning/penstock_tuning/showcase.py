"""``make run``: the main job from nothing, with the commands that a user would type.

    market -> first part trains a model -> penstockd serves it -> the rest is replayed, at true speed and at full speed

Every step but the daemon is one of penstock's own commands, shown before it runs, so that the showcase is also the
tutorial. Whatever happens, the daemon is stopped and no process stays behind.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from penstock_client.files import TickFileError, merge, open_ticks, write_dbn

FOLDER: Final = Path("run")
TRAINING_SHARE: Final = 0.75
MARKET_SECONDS: Final = 240
TRUE_SPEED_SECONDS: Final = 12
START_TIMEOUT_S: Final = 120.0  # The first start on a machine compiles.
STOP_TIMEOUT_S: Final = 15.0
TRAINING_TICKS_MAX: Final = 200_000  # More would take longer than people like to wait here.
_SOCKET_PATH_BYTES_MAX: Final = 107

EXAMPLES: Final = """\
examples:
  make run                                        a simulated market
  make run TICKS=../shared/data/FILE.dbn.zst      recorded ticks: DBN, Parquet or CSV
"""


class ShowcaseError(Exception):
    """A step failed; its own output has said why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the showcase. Returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="make run", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ticks", type=Path, metavar="FILE", help="recorded ticks instead of a simulated market")
    parser.add_argument("--seconds", type=float, default=TRUE_SPEED_SECONDS, help="how long to replay at true speed")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where everything is written")
    options = parser.parse_args(arguments)
    started_s = time.monotonic()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        _showcase(options.ticks, options.folder, options.seconds)
    except (ShowcaseError, TickFileError, OSError) as error:
        print(f"make run: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    print(f"\nDone in {time.monotonic() - started_s:.0f} s. Open {options.folder / 'report.html'} in a browser.")
    if options.ticks is None:
        _say_how_to_use_recorded_files()
    return 0


def _interrupt(number: int, _frame: object) -> None:
    """End the showcase as Ctrl-C would, so that the daemon is stopped."""
    raise KeyboardInterrupt(signal.Signals(number).name)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Keep signals until the end of the block, so that what it starts or stops is not left half done."""
    kept: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [(number, signal.signal(number, lambda number, _frame: kept.append(number))) for number in numbers]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
    if kept:
        raise KeyboardInterrupt(signal.Signals(kept[0]).name)


def _environment() -> dict[str, str]:
    """Return the environment without keys of penstock's configuration: the showcase shows the defaults."""
    return {name: value for name, value in os.environ.items() if not (name.startswith("PENSTOCK_") and "__" in name)}


def _showcase(ticks: Path | None, folder: Path, seconds: float) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    simulated = ticks is None
    if ticks is None:
        _step("A market: bursts, quotes and trades, and a book that tells something of the next move")
        ticks = folder / "market.dbn.zst"
        _run("penstock-train", "simulate", "--seconds", str(MARKET_SECONDS), "--seed", "7", "--out", str(ticks))
    else:
        _step("The recorded ticks")
        _run("penstock", "inspect", str(ticks))
    past, future = _split(ticks, folder)

    _step("A model, trained on the first part")
    model = folder / "model.safetensors"
    notice = ["--demonstration", "--notice", "Trained on a simulated market: never trade on it."]
    _run(
        "penstock-train", "fit", str(past), "--out", str(model), "--name", "showcase", *(notice if simulated else [])
    )  # fmt: skip

    _step("The daemon serves it, and the rest of the market is replayed through a real client")
    with _daemon(folder, model) as address:
        report = folder / "report.html"
        _run(
            *("penstock", "replay", str(future), "--to", address, "--speed", "1", "--start-busiest"),
            *("--seconds", f"{seconds:g}", "--report", str(report)),
        )
        _step("The same ticks again, all of them, as fast as the daemon takes them")
        _run("penstock", "replay", str(future), "--to", address, "--speed", "max")


def _step(title: str) -> None:
    print(f"\n=== {title}", flush=True)


def _run(command: str, *arguments: str) -> None:
    """Show a command of penstock's, then run it from this environment.

    Raises:
        ShowcaseError: it failed.
    """
    print(f"$ {shlex.join([command, *arguments])}", flush=True)
    finished = subprocess.run([str(_beside(command)), *arguments], check=False)  # noqa: S603 - Our own commands.
    if finished.returncode != 0:
        raise ShowcaseError(f"{command} {arguments[0]} ended with {finished.returncode}")


def _beside(command: str) -> Path:
    """Return a command of this environment."""
    return Path(sys.executable).parent / command


def _split(ticks: Path, folder: Path) -> tuple[Path, Path]:
    """Cut a recording into a part to train on and the part after it. Returns both files."""
    opened = open_ticks(ticks)
    instruments, records = merge([opened])
    cut = int(len(records) * TRAINING_SHARE)
    first = max(0, cut - TRAINING_TICKS_MAX)
    past, future = folder / "past.dbn.zst", folder / "future.dbn.zst"
    write_dbn(past, records[first:cut], instruments, dataset="PENSTOCK.RUN")
    write_dbn(future, records[cut:], instruments, dataset="PENSTOCK.RUN")
    print(f"{cut - first:,} ticks to train on, {len(records) - cut:,} after them to predict", flush=True)
    return past, future


@contextlib.contextmanager
def _daemon(folder: Path, model: Path) -> Iterator[str]:
    """Start penstockd on a Unix socket, and stop it at the end.

    Yields:
        Its address.

    Raises:
        ShowcaseError: it does not serve, or does not stop cleanly.
    """
    with contextlib.ExitStack() as stack:
        socket = folder.resolve() / "penstock.sock"
        if len(os.fsencode(socket)) > _SOCKET_PATH_BYTES_MAX:
            socket = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "penstock.sock"
        address = f"unix:{socket}"
        command = ["penstockd", "--set", f"server.address={address}", "--set", f"models.active={model}"]
        command += ["--set", "metrics.address="]
        print(f"$ {shlex.join(command)} &", flush=True)
        log_path = folder / "penstockd.log"
        log = stack.enter_context(log_path.open("wb"))
        with _uninterrupted():  # A signal within Popen would lose a process that runs already.
            process = subprocess.Popen(  # noqa: S603 - Our own command.
                [str(_beside(command[0])), *command[1:]], stdout=log, stderr=log, env=_environment()
            )
            stopping = stack.enter_context(contextlib.ExitStack())
            stopping.callback(_stop, process)
        _wait_until_serving(process, address, log_path)
        yield address
        stopping.close()
        if process.returncode != 0:
            raise ShowcaseError(f"penstockd ended with {process.returncode}; its log is {log_path}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stop the daemon, whatever other signals come meanwhile."""
    with _uninterrupted():
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_serving(process: subprocess.Popen[bytes], address: str, log_path: Path) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    started_s = time.monotonic()
    while time.monotonic() < deadline_s:
        asked = [str(_beside("penstock")), "health", "--to", address]
        if subprocess.run(asked, check=False, capture_output=True).returncode == 0:  # noqa: S603 - Our own command.
            print(f"penstockd serves at {address} after {time.monotonic() - started_s:.1f} s", flush=True)
            return
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise ShowcaseError(f"penstockd does not serve:\n{log_path.read_text(errors='replace')[-2000:]}")


def _say_how_to_use_recorded_files() -> None:
    """Name recorded files that lie beside the project, and the command that takes them."""
    data = Path(os.environ.get("PENSTOCK_DATA", "../shared/data"))
    recorded = sorted(data.glob("*.dbn.zst")) if data.is_dir() else []
    if recorded:
        print("\nRecorded ticks lie beside the project. Try the same on one of them:")
        for file in recorded:
            print(f"  make run TICKS={file}")
    else:
        print("\nWith ticks of your own: make run TICKS=path (DBN, Parquet or CSV).")


if __name__ == "__main__":
    sys.exit(main())
