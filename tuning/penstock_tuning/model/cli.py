"""penstock-train: simulate a market, train a model, tell what a model is.

    exit code 0     done
    exit code 1     default --check found other bytes
    exit code 2     usage or bad input: one sentence on stderr, no traceback, nothing half written
    exit code 130   interrupted

Heavy libraries are imported by the commands, so that --help works in any environment and a missing one is a sentence.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from penstock_client.completion import add_completion, completion_script
from penstock_tuning.model.setting_flags import add_setting_flags

_EXAMPLES: Final = """examples:
  penstock-train simulate --seconds 60 --seed 1 --out market.dbn.zst
  penstock-train fit market.dbn.zst --out market.safetensors
  penstock-train fit monday.dbn.zst tuesday.dbn.zst --horizons next_1ms,100ms,1s --name btc --out btc.safetensors
  penstock-train evaluate day.dbn.zst --report evaluation.html
  penstock-train search monday.dbn.zst tuesday.dbn.zst --trials 50 --workers 2 --out best.json
  penstock-train describe btc.safetensors
"""
_SIMULATE_EXAMPLES: Final = """examples:
  penstock-train simulate --out market.dbn.zst
  penstock-train simulate --seconds 600 --seed 7 --instruments 4 --rate 2000 --out busy.dbn.zst
  penstock-train simulate --signal 0 --out coin.dbn.zst      a market that no model can foretell
"""
_FIT_EXAMPLES: Final = """examples:
  penstock-train fit day.dbn.zst --out day.safetensors
  penstock-train fit *.dbn.zst --instruments BTCUSDT --units 2048 --seed 3 --name btc --model-version 2 --out btc.safetensors
  penstock-train fit quotes.csv --columns ts_recv=time,time_unit=ms,bid_px=bid,ask_px=ask,price_unit=decimal --out q.safetensors

  penstock-train fit *.dbn.zst --out year.safetensors --resume                 go on where a fit was stopped
  penstock-train fit day.dbn.zst --settings best.json --out tuned.safetensors    what search found
  penstock-train fit day.dbn.zst --no-recurrence --out w0.safetensors            without recurrent weights
  penstock-train fit day.dbn.zst --leak 0.3 --memory-averages none --memory-lags 0 --out plain.safetensors

horizons, 1 to 4, separated by commas:
  next        direction of the next change of the mid;   next_1ms  the same, from one millisecond on
  50ev        the mid 50 of the instrument's ticks later
  100ms       the mid 100 milliseconds later (ns, us, ms, s, min)

The same files, settings and version give the same bytes. The order of the files does not matter.
"""
_EVALUATE_EXAMPLES: Final = """examples:
  penstock-train evaluate day.dbn.zst
  penstock-train evaluate monday.dbn.zst tuesday.dbn.zst --seeds 1,2,3 --report evaluation.html
  penstock-train evaluate day.dbn.zst --horizons next,100ms --baselines c,d2,GB --units 512 --json
  penstock-train evaluate day.dbn.zst --model btc.safetensors       the file as it is, nothing refitted

Ten blocks of equal rows in order of time, per instrument; the last seven are tested, each by what the blocks before it
taught. Baselines: QI queue imbalance, unfitted; c ridge on the features; d2 c with averages and lags; f d2 with random
units; W0 the model without recurrence; GB gradient boosting on d2. No figure includes costs: none is a profit.
"""
_SEARCH_EXAMPLES: Final = """examples:
  penstock-train search day.dbn.zst --trials 50 --out best.json
  penstock-train search *.dbn.zst --trials 200 --workers 8 --units-tried 512,1024,2048 --out best.json
  penstock-train search *.dbn.zst --trials 200 --workers 8 --out best.json --resume      go on where it was stopped
  penstock-train fit *.dbn.zst --settings best.json --out tuned.safetensors

Trials are compared on the first seven of ten blocks of time; the last three are looked at once, for the best settings
and for those that were given. Every trial is kept in best.json.study; Ctrl-C loses the trials under way and no other.
"""
_DESCRIBE_EXAMPLES: Final = """examples:
  penstock-train describe model.safetensors
  penstock-train describe model.safetensors --json
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line *arguments* (those of the process where None) and return the exit code."""
    parser = _parser()
    try:
        options = parser.parse_args(arguments)
    except SystemExit as exc:  # argparse's own way out: 0 after --help, 2 after a usage error it has told of.
        return exc.code if isinstance(exc.code, int) else 2
    try:
        if options.command == "completion":
            print(completion_script(options.shell, parser), end="")
            return 0
        from penstock_client.extras import require

        for module in ("numba", "rich", "scipy", "databento_dbn"):
            require(module, extra="train", purpose=f"penstock-train {options.command}")
        from penstock_tuning.model import commands

        return commands.run(options)
    except BrokenPipeError:  # The reader of our output, such as head, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print(f"penstock-train: stopped; no result was written{_kept(options)}", file=sys.stderr)
        return 130
    except (ValueError, ArithmeticError, ImportError) as exc:
        if not _is_ours(exc):
            raise
        print(f"penstock-train {options.command}: {exc}", file=sys.stderr)
        return 2


def _kept(options: argparse.Namespace) -> str:
    """Return where the work that was stopped is kept, if anywhere."""
    from penstock_tuning.model import checkpoint, search

    suffix = {"fit": checkpoint.SUFFIX, "search": search.SUFFIX}.get(options.command)
    kept = f"{options.out}{suffix}"
    return f"; {kept} is kept: --resume goes on from it" if suffix and Path(kept).exists() else ""


def _is_ours(error: Exception) -> bool:
    """Whether *error* is a sentence of ours for the user, and not a mistake of ours."""
    return type(error).__module__.partition(".")[0] in ("penstock_tuning", "penstock_client", "penstock_kernels")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="penstock-train",
        description="Train the models that penstockd serves, and simulate markets to try them on.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_simulate(commands)
    _add_fit(commands)
    _add_evaluate(commands)
    _add_search(commands)
    _add_describe(commands)
    _add_default(commands)
    add_completion(commands, parser.prog)
    return parser


def _add_simulate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    one = _command(commands, "simulate", "write a simulated market as a DBN file", _SIMULATE_EXAMPLES)
    one.add_argument("--out", required=True, metavar="FILE", help="ends in .dbn or .dbn.zst; overwritten")
    one.add_argument("--seconds", type=float, default=60.0, help="of market time (default 60)")
    one.add_argument("--seed", type=int, default=1, help="another seed, another market (default 1)")
    one.add_argument("--instruments", type=int, default=2, metavar="N", help="1 to 64; the first one leads (default 2)")
    one.add_argument("--rate", type=float, default=450.0, help="ticks per second of all, in the long run (default 450)")
    one.add_argument(
        "--signal", type=float, default=1.0, help="how much the book tells of the next move, 0 to 1 (default 1)"
    )
    one.add_argument("--json", action="store_true", help="print what was written as JSON")


def _add_fit(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    one = _command(commands, "fit", "train a model on recorded ticks", _FIT_EXAMPLES)
    one.add_argument("ticks", nargs="+", metavar="TICKS", help="tick files: DBN, CSV or Parquet")
    one.add_argument("--out", required=True, metavar="MODEL", help="ends in .safetensors; written whole or not at all")
    one.add_argument("--instruments", default="", metavar="A,B", help="train on these symbols alone")
    one.add_argument("--columns", metavar="MAPPING", help="what the columns of CSV and Parquet files mean")
    one.add_argument("--name", default="model", help="what a session asks for (default model)")
    one.add_argument("--model-version", default="", metavar="TEXT", help="free text")
    one.add_argument("--demonstration", action="store_true", help="mark it as not to be traded on")
    one.add_argument("--notice", default="", metavar="TEXT", help="a sentence that every session is told")
    one.add_argument("--resume", action="store_true", help="go on from MODEL.fit-checkpoint, where a fit was stopped")
    one.add_argument(
        "--checkpoint-seconds", type=float, default=60.0, metavar="S", help="between two checkpoints (default 60)"
    )
    one.add_argument("--json", action="store_true", help="print the training report as JSON")
    add_setting_flags(one)


def _add_evaluate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    one = _command(commands, "evaluate", "score a model beside its baselines on recorded ticks", _EVALUATE_EXAMPLES)
    one.add_argument("ticks", nargs="+", metavar="TICKS", help="tick files: DBN, CSV or Parquet")
    one.add_argument("--model", default="", metavar="MODEL", help="score this model file as it is, beside QI")
    one.add_argument("--seeds", metavar="A,B", help="of the reservoir, each evaluated (default 1,2,3)")
    one.add_argument("--baselines", metavar="A,B", help="of QI, c, d2, f, W0, GB (default all)")
    one.add_argument("--instruments", default="", metavar="A,B", help="evaluate on these symbols alone")
    one.add_argument("--columns", metavar="MAPPING", help="what the columns of CSV and Parquet files mean")
    one.add_argument("--report", default="", metavar="PAGE", help="write a page with figures; ends in .html")
    one.add_argument(
        "--threads", type=int, default=0, metavar="N", help="of the sums and the boosting (default: half the cores)"
    )
    one.add_argument("--json", action="store_true", help="print everything as JSON")
    add_setting_flags(one, "next,next_1ms,100ms,50ev,1s")


def _add_search(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    one = _command(commands, "search", "find settings that do better on past blocks", _SEARCH_EXAMPLES)
    one.add_argument("ticks", nargs="+", metavar="TICKS", help="tick files: DBN, CSV or Parquet")
    one.add_argument("--out", required=True, metavar="BEST", help="ends in .json; written whole or not at all")
    one.add_argument("--trials", type=int, default=50, metavar="N", help="ended ones in all, resumed too (default 50)")
    one.add_argument("--workers", type=int, default=1, metavar="W", help="processes (default 1: repeatable)")
    one.add_argument("--search-seed", type=int, default=1, metavar="N", help="of the draws of settings (default 1)")
    one.add_argument("--units-tried", default="256,512,1024", metavar="A,B", help="sizes (default 256,512,1024)")
    one.add_argument("--resume", action="store_true", help="go on with BEST.study")
    one.add_argument("--instruments", default="", metavar="A,B", help="train on these symbols alone")
    one.add_argument("--columns", metavar="MAPPING", help="what the columns of CSV and Parquet files mean")
    one.add_argument("--json", action="store_true", help="print what was found as JSON")
    add_setting_flags(one)


def _add_describe(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    one = _command(commands, "describe", "tell what a model file is", _DESCRIBE_EXAMPLES)
    one.add_argument("model", metavar="MODEL", help="a .safetensors file")
    one.add_argument("--json", action="store_true", help="print all of it but the weights as JSON")


def _add_default(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    one = _command(commands, "default", "make the embedded default model again", "")
    one.add_argument("--out", default="", metavar="MODEL", help="where to write it (default: where penstockd finds it)")
    one.add_argument("--check", action="store_true", help="write nothing; exit 1 unless the bytes are the same")
    one.add_argument("--json", action="store_true", help="print the training report as JSON")


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, caption: str, examples: str
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=caption,
        description=caption[0].upper() + caption[1:] + ".",
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


if __name__ == "__main__":
    sys.exit(main())
