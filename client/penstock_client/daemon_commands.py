"""``penstock health`` and ``penstock models``: ask a daemon how it is, and change what it predicts with."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any, Final

from penstock_client.default_address import default_address
from penstock_client.exits import Exit

MODELS_EXAMPLES: Final = """\
examples:
  penstock models list
  penstock models describe                     the active model, with its training report
  penstock models load btc-2024.safetensors    a file of the daemon's models.folder
  penstock models activate btc-2024            for new sessions
  penstock models activate btc-2024 --open-sessions"""


def add_daemon_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add both commands to the parser of ``penstock``."""
    health = commands.add_parser(
        "health",
        help="ask whether a daemon serves",
        description="Asks a daemon for its health: exit 0 when it is SERVING, 3 when it is not or nobody is there.",
        epilog="examples:\n  penstock health\n  penstock health --to 127.0.0.1:50051 --service penstock.v1.PredictionService",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    health.set_defaults(run=run_health)
    health.add_argument("--service", default="", metavar="NAME", help="one service (default: the whole daemon)")
    add_call_arguments(health)
    models = commands.add_parser(
        "models",
        help="list, describe, load and activate models",
        description="Looks at the models of a daemon and changes which one predicts.",
        epilog=MODELS_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = models.add_subparsers(dest="verb", required=True, metavar="VERB")
    listing = verbs.add_parser("list", help="name every loaded model")
    describe = verbs.add_parser("describe", help="tell all about one model")
    describe.add_argument("name", nargs="?", default="", help="the model (default: the active one)")
    load = verbs.add_parser("load", help="have the daemon read a model file of its models.folder")
    load.add_argument("file", help="the file's name, without a folder")
    activate = verbs.add_parser("activate", help="make a loaded model the one of new sessions")
    activate.add_argument("name", help="the model")
    activate.add_argument("--open-sessions", action="store_true", help="switch the sessions that are open too")
    for parser in (listing, describe, load, activate):
        parser.set_defaults(run=run_models)
        add_call_arguments(parser)


def run_health(options: argparse.Namespace) -> int:
    """Print the health and return 0 only for SERVING.

    Raises:
        PenstockError: nobody answered, or the daemon refused.
    """
    from penstock_client.daemon_calls import DaemonCalls

    with DaemonCalls(options.to, options.timeout) as daemon:
        health = daemon.health(options.service)
    _show(options, {"address": options.to, "service": options.service, "health": health}, health)
    return Exit.DONE if health == "SERVING" else Exit.NO_DAEMON


def run_models(options: argparse.Namespace) -> int:
    """Do what the verb says.

    Raises:
        PenstockError: nobody answered, or the daemon refused.
    """
    from penstock_client.daemon_calls import DaemonCalls

    with DaemonCalls(options.to, options.timeout) as daemon:
        if options.verb == "list":
            listed = daemon.list_models()
            models = [{**_model(one), "active": one.name == listed.active} for one in listed.models]
            _show(options, {"active": listed.active, "models": models}, "\n".join(_line(one) for one in models))
        elif options.verb == "describe":
            answer = daemon.describe_model(options.name)
            described = {
                **_model(answer.model),
                "units": answer.units,
                "topology": answer.topology,
                "features": list(answer.features),
                "rebuild_ticks": answer.rebuild_ticks,
                "metadata": _metadata(answer.metadata_json),
            }
            _show(options, described, _described(described))
        elif options.verb == "load":
            model = _model(daemon.load_model(options.file).model)
            _show(
                options, model, f"loaded {_line(model)}\nmake it active with: penstock models activate {model['name']}"
            )
        else:
            switched = daemon.activate_model(options.name, open_sessions=options.open_sessions)
            model = _model(switched.model)
            text = f"active: {_line(model)}\nopen sessions switched: {switched.sessions_switched}"
            _show(options, {**model, "sessions_switched": switched.sessions_switched}, text)
    return Exit.DONE


def add_call_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what every command has that calls a daemon: where it is, how long to wait, and JSON."""
    parser.add_argument("--to", default=default_address(), metavar="ADDRESS", help="the daemon (default: %(default)s)")
    parser.add_argument(
        "--timeout", type=float, default=10.0, metavar="S", help="wait this long (default: %(default)g)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _show(options: argparse.Namespace, found: dict[str, Any], text: str) -> None:
    sys.stdout.write((json.dumps(found, indent=2) if options.json else text) + "\n")


def _model(summary: Any) -> dict[str, Any]:
    return {
        "name": summary.name,
        "version": summary.version,
        "content_hash": summary.content_hash.hex(),
        "serial": summary.serial,
        "demonstration": summary.demonstration,
        "notice": summary.notice,
    }


def _line(model: dict[str, Any]) -> str:
    marks = [
        mark for mark, shown in (("active", model.get("active")), ("demonstration", model["demonstration"])) if shown
    ]
    marked = f"  [{', '.join(marks)}]" if marks else ""
    return f"{model['name']} {model['version']}  sha256 {model['content_hash'][:16]}{marked}"


def _described(model: dict[str, Any]) -> str:
    lines = [
        _line(model),
        *([model["notice"]] if model["notice"] else []),
        f"{model['units']:,} units, {model['topology']}, {len(model['features'])} inputs",
        f"features: {', '.join(model['features'])}",
        f"a state is rebuilt from {model['rebuild_ticks']:,} ticks",
        json.dumps(model["metadata"], indent=2),
    ]
    return "\n".join(lines)


def _metadata(text: str) -> Any:
    """Return the model file's own metadata; as text where it is no JSON."""
    try:
        return json.loads(text)
    except ValueError:
        return text
