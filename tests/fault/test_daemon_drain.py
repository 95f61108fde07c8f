"""SIGTERM: not serving, Goodbye, what is in flight answered, exit 0 within a bound, whatever clients do."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc

from penstock.v1 import prediction_pb2 as pb
from penstock.v1.records import predictions_from_bytes
from support.daemon import launch_daemon, running_daemon, small, small_model, start_daemon
from support.raw_stream import RawStream, StreamEndError, hello
from support.scrape import scrape
from support.tick_arrays import quotes
from support.victim import wait_until

NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVING = health_pb2.HealthCheckResponse.SERVING
TICKS = quotes(40_000)


class Strategy(threading.Thread):
    """Sends as much as it may until the daemon says Goodbye, and reads to the end."""

    def __init__(self, address: str) -> None:
        super().__init__(daemon=True)
        self.address = address
        self.warm = threading.Event()
        self.session_id = 0
        self.goodbye: pb.Goodbye | None = None
        self.sequences: list[int] = []
        self.sent_before_goodbye = 0
        self.end: StreamEndError | None = None

    def run(self) -> None:
        with RawStream(self.address) as stream:
            window = stream.hello(client_name="strategy").in_flight_max
            self.session_id = stream.welcome.session_id
            try:
                while True:
                    while self.goodbye is None and stream.next_sequence - len(self.sequences) <= window - 64:
                        stream.ticks(TICKS[stream.next_sequence : stream.next_sequence + 64])
                    response = stream.receive()
                    if response.WhichOneof("message") == "goodbye":
                        self.goodbye = response.goodbye
                        self.sent_before_goodbye = stream.next_sequence
                    elif response.WhichOneof("message") == "predictions":
                        self.sequences += predictions_from_bytes(response.predictions.records)["sequence"].tolist()
                        if len(self.sequences) > 1000:
                            self.warm.set()
            except StreamEndError as end:
                self.end = end


class Watcher(threading.Thread):
    """Watches health, and keeps what it hears."""

    def __init__(self, address: str) -> None:
        super().__init__(daemon=True)
        self.heard: list[int] = []
        self.channel = grpc.insecure_channel(address)
        self.call = health_pb2_grpc.HealthStub(self.channel).Watch(health_pb2.HealthCheckRequest())
        self.start()

    def run(self) -> None:
        try:
            for response in self.call:
                self.heard.append(response.status)
        except grpc.RpcError:
            self.channel.close()


def test_stop_under_load_answers_what_is_in_flight_and_exits_0(tmp_path: Path) -> None:
    slow = small_model(tmp_path, 2, units=2048, fan_in=32)  # So slow that there is always something in flight.
    sets = ("server.drain_s=15", f"models.active={slow}", "models.units_max=2048", "sessions.in_flight_max=1024")
    daemon = start_daemon(tmp_path, *sets)
    watcher = Watcher(daemon.address)
    strategies = [Strategy(daemon.address) for _ in range(3)]
    for strategy in strategies:
        strategy.start()
    for strategy in strategies:
        assert strategy.warm.wait(60)
    silent = RawStream(daemon.address)  # Connected, and has not said Hello.
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(60) == 0
    for strategy in strategies:
        strategy.join(60)
        assert strategy.end is not None
        assert strategy.end.code == "OK"
        assert strategy.goodbye is not None
        assert strategy.goodbye.reason == pb.Goodbye.REASON_DRAINING
        answered = len(strategy.sequences)
        assert strategy.sequences == list(range(answered)), "in order, each once"
        assert answered <= strategy.sent_before_goodbye
        (ended,) = (line for line in daemon.events("session_ended") if line["session"] == strategy.session_id)
        assert answered == ended["ticks"], "what was taken is answered"
    watcher.join(60)
    assert watcher.heard == [SERVING, NOT_SERVING]
    assert not Path(daemon.address.removeprefix("unix:")).exists()
    assert not daemon.events("drain_timeout"), "nobody had to be waited for"
    assert daemon.events("stopped")
    assert "Traceback" not in daemon.output()
    silent.close()


def test_what_was_sent_before_the_stop_is_answered_after_it(tmp_path: Path) -> None:
    daemon = start_daemon(tmp_path, *small(tmp_path, "server.drain_s=15", "metrics.address=127.0.0.1:0"))
    with RawStream(daemon.address) as stream:
        stream.hello()
        stream.ticks(TICKS[:200])
        wait_until(lambda: scrape(daemon)['penstock_ticks_total{pace="realtime"}'] == 200)
        daemon.process.send_signal(signal.SIGTERM)
        kinds, answers = [], np.zeros(0, np.uint64)
        for response in stream.messages():
            kinds.append(response.WhichOneof("message"))
            answers = np.append(answers, predictions_from_bytes(response.predictions.records)["sequence"])
        assert daemon.process.wait(60) == 0
    assert answers.tolist() == list(range(200))
    assert kinds.count("goodbye") == 1
    assert "Traceback" not in daemon.output()


def test_stopping_daemon_takes_no_new_session(tmp_path: Path) -> None:
    """A stream that is connected already, and says Hello too late, hears that the daemon is draining."""
    daemon = start_daemon(tmp_path, *small(tmp_path, "server.drain_s=15", "sessions.hello_timeout_s=60"))
    with RawStream(daemon.address) as late, RawStream(daemon.address) as busy:
        busy.hello()
        wait_until(lambda: daemon.events("session_opened"))
        time.sleep(0.2)  # The call of the late one has arrived, too: it says nothing by which one could see it.
        daemon.process.send_signal(signal.SIGTERM)
        end = late.end()
        assert (end.code, end.reason) == ("UNAVAILABLE", "DRAINING")
        assert end.message == "daemon: was draining; try again soon, or ask another daemon"
        assert busy.receive("goodbye").goodbye.message == "the daemon is stopping"
        assert busy.end().code == "OK"
        assert daemon.process.wait(60) == 0
    assert "Traceback" not in daemon.output()


def test_client_that_never_reads_does_not_keep_the_daemon(tmp_path: Path) -> None:
    sets = ("server.drain_s=0.5", "sessions.in_flight_max=4096")
    with running_daemon(tmp_path, *small(tmp_path, *sets)) as daemon, RawStream(daemon.address) as deaf:
        deaf.hello()
        for start in range(0, 4096, 256):
            deaf.ticks(TICKS[start : start + 256])
        with RawStream(daemon.address) as other:
            other.hello()
            other.ticks(TICKS[:100])
            other.predictions(100)
            daemon.process.send_signal(signal.SIGTERM)
            assert other.receive("goodbye")
            assert other.end().code == "OK"
        assert daemon.process.wait(60) == 0
        assert daemon.events("drain_timeout")
        assert daemon.events("stopped")


def test_signal_during_the_start_stops_it_in_order(tmp_path: Path) -> None:
    daemon = launch_daemon(tmp_path, *small(tmp_path))
    wait_until(Path(daemon.address.removeprefix("unix:")).exists)  # Listening, perhaps not yet warm.
    daemon.process.send_signal(signal.SIGINT)
    assert daemon.process.wait(60) == 0
    assert daemon.events("stopped")
    assert "Traceback" not in daemon.output()


def test_early_strategy_hears_that_the_daemon_warms_up(tmp_path: Path) -> None:
    daemon = launch_daemon(tmp_path, *small(tmp_path))
    wait_until(Path(daemon.address.removeprefix("unix:")).exists)
    ends: list[StreamEndError] = []
    while not ends or ends[-1].code != "OK":
        with RawStream(daemon.address) as stream:
            stream.send(hello=hello())
            stream.goodbye()
            ends.append(stream.end())
    told = {(end.code, end.reason, end.message) for end in ends[:-1]}
    assert told <= {("UNAVAILABLE", "NOT_READY", "daemon: was warming up; try again soon, or ask another daemon")}
    assert daemon.terminate() == 0
    assert "Traceback" not in daemon.output()
