"""Holds a session over gRPC for a program in another language, which attaches to its shared memory by itself.

    python -m penstock_client.shared_memory.launch unix:/run/penstock.sock --instrument 1:BTCUSDT -- ./strategy

The program finds the socket's path in PENSTOCK_RING_ADDRESS and the token, in hexadecimal, in PENSTOCK_RING_TOKEN; both are
good for one attachment. Here Hello is said, heartbeats go out, and when the program ends, Goodbye. A lost daemon is not
found again: the program sees the hang-up, and whoever started it decides.

    exit code    the program's; 1 where the session was refused or lost
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from typing import Final

from penstock.v1 import prediction_pb2 as pb
from penstock_client import wire
from penstock_client.errors import DaemonProtocolError, LocalUsageError, PenstockError, SessionRefused
from penstock_client.instruments import Instrument, Pace
from penstock_client.refusals import StreamEnded
from penstock_client.settings import CONNECT_DEADLINE_S, Settings, checked_settings
from penstock_client.stream import Stream

ADDRESS_VARIABLE: Final = "PENSTOCK_RING_ADDRESS"
TOKEN_VARIABLE: Final = "PENSTOCK_RING_TOKEN"  # noqa: S105 - The name of a variable.
_LEAVE_S: Final = 2.0  # For the program, once the stream is lost: it sees the hang-up itself.


async def hold(settings: Settings, command: Sequence[str]) -> int:
    """Open a session, run *command* on its shared memory, and return the program's exit code.

    Raises:
        SessionRefused: the daemon said no, or the stream was lost.
        DaemonProtocolError: it answered with nonsense.
        OSError: the program can't be started.
    """
    stream = None
    try:
        hello = wire.hello(settings.greeting, resume_token=b"", next_answer=0)
        stream, data = await Stream.open(settings.address, hello, settings.connect_deadline_s)
        welcome = _welcome(data)
        program = await asyncio.create_subprocess_exec(*command, env=os.environ | _offer(welcome))
        return await _beside(program, stream, welcome)
    except StreamEnded as end:
        raise end.refusal() from None
    finally:
        if stream is not None:
            await stream.close()


async def _beside(program: asyncio.subprocess.Process, stream: Stream, welcome: pb.Welcome) -> int:
    """Keep the stream alive while *program* runs, and say Goodbye after it."""
    ended = asyncio.ensure_future(program.wait())
    reading = asyncio.ensure_future(_read(stream))
    beating = asyncio.ensure_future(_beat(stream, welcome.heartbeat_interval_ns / 1e9))
    try:
        await asyncio.wait([ended, reading], return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            await asyncio.wait([ended], timeout=_LEAVE_S)
        if not ended.done():
            program.send_signal(signal.SIGTERM)
        code = await ended
        if not reading.done():
            await stream.write(wire.goodbye())
            await stream.done_writing()
            await asyncio.wait([reading], timeout=_LEAVE_S)
            return code
        await reading
        return code or 1  # The daemon left first.
    finally:
        for task in (ended, reading, beating):
            task.cancel()
        if program.returncode is None:
            program.kill()
        await asyncio.wait([ended, reading, beating])


async def _read(stream: Stream) -> None:
    """Read until the daemon closes the stream; what it says is not for us."""
    while await stream.read() is not None:
        pass


async def _beat(stream: Stream, interval_s: float) -> None:
    while interval_s > 0:
        await asyncio.sleep(interval_s / 2)
        await stream.write(wire.heartbeat())


def _welcome(data: bytes) -> pb.Welcome:
    response = wire.response(data)
    if response.WhichOneof("message") != "welcome":
        raise DaemonProtocolError(f"the daemon must answer Hello with Welcome: was {wire.kind(response)}")
    if not response.welcome.HasField("shared_memory"):
        raise SessionRefused(
            "the daemon's Welcome offers no shared memory: update penstockd", code="FAILED_PRECONDITION"
        )
    return response.welcome


def _offer(welcome: pb.Welcome) -> dict[str, str]:
    offer = welcome.shared_memory
    return {ADDRESS_VARIABLE: offer.address, TOKEN_VARIABLE: offer.token.hex()}


def _instrument(text: str) -> Instrument:
    number, _, symbol = text.partition(":")
    if not number.isdigit() or not symbol:
        raise argparse.ArgumentTypeError(f"an instrument is ID:SYMBOL, such as 1:BTCUSDT: was {text!r}")
    return Instrument(int(number), symbol)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line *arguments* (those of the process where None) and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m penstock_client.shared_memory.launch", description=__doc__)
    parser.add_argument("address", help="unix:/path/of.sock or host:port")
    parser.add_argument("--instrument", type=_instrument, action="append", required=True, metavar="ID:SYMBOL")
    parser.add_argument("--model", default="", help="the model's name (default: the active one)")
    parser.add_argument("command", nargs="+", help="the program and its arguments, after --")
    options = parser.parse_args(arguments)
    try:
        settings = checked_settings(
            options.address,
            options.instrument,
            model=options.model,
            pace=Pace.REALTIME,
            client_name=os.path.basename(options.command[0])[:64],  # noqa: PTH119 - A name, not a path.
            connect_deadline_s=CONNECT_DEADLINE_S,
            deadline_s=None,
            reconnect=False,
            online_readout=False,
            shared_memory=True,
        )
        return asyncio.run(hold(settings, options.command))
    except (PenstockError, OSError) as error:
        sys.stderr.write(f"launch: {error}\n")
        return 2 if isinstance(error, LocalUsageError) else 1


if __name__ == "__main__":
    sys.exit(main())
