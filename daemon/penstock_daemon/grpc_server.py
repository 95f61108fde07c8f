"""The gRPC server as this daemon wants it, without a service yet, and without a word about clients that are gone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from penstock_daemon.config import Config
from penstock_daemon.lost_clients import leave_out_lost_clients
from penstock_daemon.readable import ReadableRequests


def make_server(config: Config, count_refusal: Callable[[str], None]) -> Any:
    """Return a server that does not listen yet.

    Args:
        config: of the daemon.
        count_refusal: gets the reason of each request that can't be read.
    """
    leave_out_lost_clients()
    return grpc.aio.server(
        interceptors=(ReadableRequests(count_refusal),),
        options=(
            ("grpc.so_reuseport", 0),
            ("grpc.http2.bdp_probe", 0),
            ("grpc.enable_channelz", 0),
            ("grpc.max_receive_message_length", config.server.message_bytes_max),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_concurrent_streams", 4 * config.sessions.max + 64),
            ("grpc.keepalive_time_ms", 20_000),  # Finds hosts that are gone; sessions have heartbeats of their own.
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
            ("grpc.keepalive_permit_without_calls", 1),
        ),
    )
