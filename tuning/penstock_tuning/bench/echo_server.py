"""The bare side of the round-trip comparison: a grpc.aio server that does nothing but answer.

The first message of a stream is the answer to all that follow, so that it carries the bytes of a prediction and the
messages after it those of a tick. Same options, same event loop and a process of its own, like the daemon's.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from typing import Any, Final

import grpc
import uvloop

from penstock_daemon.notify import Notifier

METHOD: Final = "/penstock.bench.Echo/Stream"

# Those of the daemon's server; a test compares them.
OPTIONS: Final[tuple[tuple[str, int], ...]] = (
    ("grpc.so_reuseport", 0),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.enable_channelz", 0),
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_concurrent_streams", 128),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
)


async def answer(_requests: Any, context: Any) -> None:
    """Write the first message back for every one that follows."""
    reply = await context.read()
    while await context.read() is not grpc.aio.EOF:
        await context.write(reply)


async def serve(address: str) -> None:
    """Serve at *address* until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = grpc.aio.server(options=OPTIONS)
    _, service, method = METHOD.split("/")
    handlers = {method: grpc.stream_stream_rpc_method_handler(answer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    server.add_insecure_port(address)
    await server.start()
    gc.collect()
    gc.freeze()
    Notifier.from_environ(os.environ).ready()
    await stop.wait()
    await server.stop(grace=0.2)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(sys.argv[1]))
