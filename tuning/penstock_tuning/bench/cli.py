"""penstock-bench: measure every published number on this machine.

    exit code 0     measured; an aim that was missed is shown
    exit code 1     --require-aims, and an aim was missed
    exit code 2     usage, bad input, or a process that failed: one sentence on stderr, no traceback
    exit code 130   interrupted

Heavy libraries are imported by the benchmarks, so that --help works in any environment and a missing one is a sentence.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from penstock_client.completion import add_completion, completion_script

_NEEDED: Final = ("numba", "uvloop", "structlog", "databento_dbn", "scipy")
_NEEDED_ON_A_GPU: Final = ("numba",)  # And CuPy, which has a sentence of its own.

_EXAMPLES: Final = """examples:
  penstock-bench all                                           the whole set, as `make bench` does
  penstock-bench grpc --json
  penstock-bench load --ticks day.mbp-1.dbn.zst --seconds 30 --repeat 3 --raw load.npy
  penstock-bench throughput --model btc.safetensors --set engine.batch_max=128
  penstock-bench load --placement free                         let the kernel place both sides

Without --ticks, the recorded Binance file of PENSTOCK_DATA is used, or a simulated market where there is none.
docs/benchmarks.md says what each figure means and how to compute it again from --raw.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line *arguments* (those of the process where None) and return the exit code."""
    parser = _parser()
    try:
        options = parser.parse_args(arguments)
    except SystemExit as exc:  # argparse's own way out: 0 after --help, 2 after a usage error it has told of.
        return exc.code if isinstance(exc.code, int) else 2
    before = signal.signal(signal.SIGTERM, _interrupt)  # Processes that we started are stopped, whoever stops us.
    try:
        if options.name == "completion":
            print(completion_script(options.shell, parser), end="")
            return 0
        from penstock_client.extras import require

        for module in _NEEDED_ON_A_GPU if options.name == "gpu" else _NEEDED:
            require(module, extra="daemon,train", purpose=f"penstock-bench {options.name}")
        from penstock_tuning.bench import commands

        return commands.run(options)
    except BrokenPipeError:  # The reader of our output, such as head, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("penstock-bench: stopped", file=sys.stderr)
        return 130
    except Exception as exc:
        from penstock_tuning.bench.parts import is_ours

        if not is_ours(exc):
            raise
        print(f"penstock-bench {options.name}: {exc}", file=sys.stderr)
        return 2
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="penstock-bench",
        description="Measure penstock on this machine.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    one = _benchmark(names, "grpc", "one tick's round trip over a Unix socket, against a bare grpc.aio echo")
    one.add_argument("--trips", type=int, default=3_000, metavar="N", help="round trips of each side (default 3000)")
    one.add_argument(
        "--block", type=int, default=100, metavar="N", help="round trips before sides change (default 100)"
    )
    one.add_argument("--repeat", type=int, default=5, metavar="N", help="with new servers; median of N (default 5)")
    one = _benchmark(names, "load", "recorded ticks at the market's pace, open loop, from their busiest stretch")
    one.add_argument("--speed", type=float, default=1.0, metavar="X", help="times the market's speed (default 1)")
    one.add_argument("--seconds", type=float, default=30.0, metavar="S", help="of market time (default 30)")
    one.add_argument("--repeat", type=int, default=3, metavar="N", help="figures are the median of N (default 3)")
    one = _benchmark(names, "feed", "a recorded feed by multicast on this machine, from the kernel's stamp to delivery")
    one.add_argument("--speed", type=float, default=1.0, metavar="X", help="times the recording's speed (default 1)")
    one.add_argument("--seconds", type=float, default=30.0, metavar="S", help="of the recording (default 30)")
    one.add_argument("--repeat", type=int, default=3, metavar="N", help="figures are the median of N (default 3)")
    one.add_argument("--date", default="", metavar="YYYY-MM-DD", help="--ticks names an ITCH 5.0 file of this day")
    one = _benchmark(names, "shm", "one tick's round trip through shared memory, beside gRPC and an empty echo")
    one.add_argument(
        "--trips", dest="ring_trips", type=int, default=20_000, metavar="N", help="round trips (default 20000)"
    )
    one.add_argument("--count", type=int, default=500_000, metavar="TICKS", help="at full speed (default 500000)")
    one.add_argument("--seconds", type=float, default=10.0, metavar="S", help="of market time (default 10)")
    one.add_argument("--repeat", type=int, default=5, metavar="N", help="of every side; median of N (default 5)")
    one = _benchmark(names, "throughput", "predictions per second at full speed, by gRPC and in process")
    one.add_argument("--count", type=int, default=500_000, metavar="TICKS", help="in each repeat (default 500000)")
    one.add_argument("--repeat", type=int, default=3, metavar="N", help="figures are the median of N (default 3)")
    one = _benchmark(names, "memory", "what a daemon holds, what a state costs, and what a million ticks add")
    one.add_argument("--count", type=int, default=1_000_000, metavar="TICKS", help="after warm-up (default 1000000)")
    one = _benchmark(
        names, "startup", "from start to serving and to the first prediction, compiled anew and from cache"
    )
    one.add_argument("--repeat", type=int, default=3, metavar="N", help="starts from the cache (default 3)")
    one = _benchmark(
        names, "kernels", "one tick per topology and size, against ReservoirPy, NumPy, SciPy and the floor"
    )
    one.add_argument(
        "--rounds", type=int, default=51, metavar="N", help="all sides take turns; median of N (default 51)"
    )
    one.add_argument("--quick", action="store_true", help="small networks: to see that it works, not to publish")
    one = _benchmark(names, "stamps", "what timing a tick costs: a stamp, a record, and all of it in the engine's step")
    one.add_argument(
        "--rounds", type=int, default=301, metavar="N", help="all sides take turns; median of N (default 301)"
    )
    one.add_argument("--quick", action="store_true", help="short turns: to see that it works, not to publish")
    one = _benchmark(names, "reference", "the field's reference tasks, beside ReservoirPy and what was published")
    one.add_argument("--seeds", type=int, default=10, metavar="N", help="of each task and network (default 10)")
    one.add_argument("--quick", action="store_true", help="small networks: to see that it works, not to publish")
    one = _benchmark(names, "gpu", "one tick of 1 to 1,024 states on an NVIDIA GPU, beside the CPU and plain CuPy")
    one.add_argument("--index", type=int, default=0, metavar="N", help="which GPU (default 0)")
    one.add_argument(
        "--seconds", type=float, default=230.0, metavar="S", help="stop after so long, with what there is (default 230)"
    )
    one.add_argument("--quick", action="store_true", help="few trips: to see that it works, not to publish")
    one.add_argument("--found", type=Path, metavar="FILE", help="write each finding there as it comes, as JSON lines")
    one = _benchmark(names, "all", "every benchmark, with one table at the end")
    one.add_argument("--quick", action="store_true", help="a tenth of everything: to see that it works, not to publish")
    add_completion(names, parser.prog)
    return parser


def _benchmark(
    names: argparse._SubParsersAction[argparse.ArgumentParser], name: str, caption: str
) -> argparse.ArgumentParser:
    """Add a benchmark with the options that all of them take."""
    one = names.add_parser(
        name,
        help=caption,
        description=caption[0].upper() + caption[1:] + ".",
        epilog=f"examples:\n  penstock-bench {name}\n  penstock-bench {name} --json --raw {name}.npy\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    one.add_argument("--json", action="store_true", help="print everything as JSON, with machine and conditions")
    one.add_argument(
        "--raw",
        type=Path,
        metavar="FILE.npy",
        help="write series, sequence, scheduled, sent, received (ns) and stalled of every tick"
        + (", one file a benchmark: FILE-NAME.npy" if name == "all" else ""),
    )
    one.add_argument("--ticks", type=Path, metavar="FILE", help="tick file: DBN, CSV or Parquet")
    one.add_argument("--model", default="", metavar="FILE", help="model file (default: the demonstration model)")
    one.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="set a key of the daemon, as penstockd does"
    )
    one.add_argument(
        "--placement",
        choices=("split", "free"),
        default="",
        help="split: strategy and daemon on halves of the processors; free: as the kernel likes (default: split)",
    )
    one.add_argument("--quiet", action="store_true", help="no progress on standard error")
    one.add_argument("--require-aims", action="store_true", help="exit 1 where an aim is missed")
    return one


if __name__ == "__main__":
    sys.exit(main())
