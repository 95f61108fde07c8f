"""What keeps ``penstock top`` up to date: a thread that watches one daemon, and comes back to it after it went away.

    WatchLatency drives it: at every message the daemon is described anew, and both become the facts of that interval

Nothing is waited for on the screen's side: ``Watch.latest`` is what there is.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any, Final

import grpc

from penstock.v1 import daemon_pb2, latency_pb2
from penstock_client.channel import OPTIONS, checked_address
from penstock_client.errors import ConnectFailed, PenstockError
from penstock_client.refusals import ended_by
from penstock_client.top_facts import Facts, facts_of

_RETRY_S: Final = 0.5
_PATIENCE_S: Final = 5.0  # For a description, beside the interval.
_STOP_S: Final = 2.0
_GONE: Final = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "UNKNOWN", "INTERNAL"})
_TOO_OLD: Final = "the daemon is older than this command: it has no DaemonService; upgrade it, or use penstock latency"


@dataclass(frozen=True)
class Latest:
    """What is known of the daemon.

    Attributes:
        facts: the last ones; None before the first.
        taken_s: when they came, monotonic.
        number: of these facts, from 1 on; 0 for none.
        trouble: why nothing comes now; "" while it does.
    """

    facts: Facts | None = None
    taken_s: float = 0.0
    number: int = 0
    trouble: str = ""


class Watch:
    """Watches a daemon from ``start`` to ``stop``.

    Args:
        address: as connect() takes it.
        interval_s: between two sets of facts.

    Raises:
        LocalUsageError: the address is none.
    """

    def __init__(self, address: str, interval_s: float) -> None:
        self.address = address
        self.failure: PenstockError | None = None  # What ended it for good.
        self._target = checked_address(address)
        self._interval_s = interval_s
        self._latest = Latest()
        self._changed = threading.Condition()
        self._stopped = threading.Event()
        self._call: Any = None
        self._thread = threading.Thread(target=self._run, name="penstock-top", daemon=True)

    @property
    def latest(self) -> Latest:
        """What is known now."""
        return self._latest

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; may be called twice."""
        self._stopped.set()
        call = self._call
        if call is not None:
            call.cancel()
        if self._thread.ident is not None:
            self._thread.join(_STOP_S)

    def wait(self, number: int, timeout_s: float) -> Latest:
        """Return what is known once there is more than *number*, or an end for good; after *timeout_s* at the latest."""
        with self._changed:
            self._changed.wait_for(lambda: self._latest.number > number or self.failure is not None, timeout_s)
        return self._latest

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                with grpc.insecure_channel(self._target, options=OPTIONS) as channel:
                    self._follow(channel)
                self._tell(trouble="the daemon ended the stream")
            except grpc.RpcError as error:
                if self._stopped.is_set():
                    return
                end = ended_by(error)
                if end.code == "UNIMPLEMENTED":
                    self._fail(ConnectFailed(_TOO_OLD))
                    return
                if end.code not in _GONE:
                    self._fail(end.refusal())
                    return
                self._tell(trouble=end.message or end.code)
            self._stopped.wait(_RETRY_S)

    def _follow(self, channel: Any) -> None:
        """Take in one message after the other until the call ends."""
        describe = channel.unary_unary(
            "/penstock.v1.DaemonService/DescribeDaemon",
            request_serializer=daemon_pb2.DescribeDaemonRequest.SerializeToString,
            response_deserializer=daemon_pb2.DescribeDaemonResponse.FromString,
        )
        watch = channel.unary_stream(
            "/penstock.v1.LatencyService/WatchLatency",
            request_serializer=latency_pb2.WatchLatencyRequest.SerializeToString,
            response_deserializer=latency_pb2.WatchLatencyResponse.FromString,
        )

        def take(latency: latency_pb2.WatchLatencyResponse | None, earlier: Facts | None) -> Facts:
            answer = describe(daemon_pb2.DescribeDaemonRequest(), timeout=_PATIENCE_S)
            facts = facts_of(answer.snapshot, latency, earlier, address=self.address)
            self._tell(facts=facts)
            return facts

        facts = take(None, None)  # Not of before the daemon went away: what came meanwhile is no rate.
        self._call = watch(latency_pb2.WatchLatencyRequest(interval_ns=round(self._interval_s * 1e9)))
        try:
            for latency in self._call:
                facts = take(latency, facts)
        finally:
            self._call.cancel()

    def _tell(self, *, facts: Facts | None = None, trouble: str = "") -> None:
        with self._changed:
            before = self._latest
            if facts is not None:
                self._latest = Latest(facts, time.monotonic(), before.number + 1)
            else:
                self._latest = Latest(before.facts, before.taken_s, before.number, trouble)
            self._changed.notify_all()

    def _fail(self, failure: PenstockError) -> None:
        with self._changed:
            self.failure = failure
            self._changed.notify_all()
