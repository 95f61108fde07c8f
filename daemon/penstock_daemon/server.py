"""The daemon as a whole: everything is made, warmed up and connected here, in the order in which it is needed.

    guard the address -> arena, models, compile -> engine starts and warms up -> memory locked, collector frozen
    -> READY (health SERVING) ... SIGTERM -> NOT_SERVING, Goodbye, in-flight ticks answered -> stopped

The gRPC server listens from the start, so that health can be asked; sessions are refused with UNAVAILABLE until the
warm-up is done.
"""

from __future__ import annotations

import asyncio
import gc
import importlib.metadata
import os
import secrets
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import grpc
import structlog

from penstock.v1 import daemon_pb2_grpc, latency_pb2_grpc, model_pb2_grpc
from penstock_daemon import admin_services, derived, placement
from penstock_daemon.addresses import TcpAddress, UnixAddress, parse_address
from penstock_daemon.admin_services import HealthService, ModelService
from penstock_daemon.budget_watch import BudgetWatch
from penstock_daemon.budgets import totals_of
from penstock_daemon.clocks.care import ClockCare
from penstock_daemon.config import Config
from penstock_daemon.daemon_service import DaemonParts, DaemonService
from penstock_daemon.derived import StartError
from penstock_daemon.device.backend import DeviceError
from penstock_daemon.device.care import DeviceCare
from penstock_daemon.device.select import Choice, make_engine
from penstock_daemon.engine import Engine
from penstock_daemon.feed.care import FeedCare
from penstock_daemon.grpc_server import make_server
from penstock_daemon.host_care import HostCare
from penstock_daemon.housekeeper import Housekeeper
from penstock_daemon.keeper import Keeper
from penstock_daemon.latency_service import LatencyService
from penstock_daemon.loop_link import LoopLink
from penstock_daemon.metrics import MetricsSnapshot
from penstock_daemon.metrics_server import MetricsServer
from penstock_daemon.model_table import ModelTable
from penstock_daemon.notify import Notifier
from penstock_daemon.online_table import OnlineTable
from penstock_daemon.prediction_service import SERVICE, PredictionService
from penstock_daemon.readiness import Readiness, Reason
from penstock_daemon.recorder_care import RecorderCare
from penstock_daemon.self_watch.watch import SelfWatch
from penstock_daemon.session_table import SessionTable
from penstock_daemon.shared_memory.parts import SharedMemory
from penstock_daemon.snapshot import SnapshotTaker, predictions_of
from penstock_daemon.socket_guard import AddressGuard, ListenError, check_port_free, guard_address

SERVICES: Final = (SERVICE, "penstock.v1.ModelService", "penstock.v1.LatencyService", "penstock.v1.DaemonService")

_log = structlog.get_logger("penstock.daemon")


class Daemon:
    """One daemon in this process, on the running event loop.

    Args:
        config: without a fault.
        notifier: of the supervisor.
    """

    def __init__(self, config: Config, notifier: Notifier) -> None:
        self.config = config
        self.version = importlib.metadata.version("penstock")
        self.daemon_id = secrets.token_bytes(8)
        self.address = self.metrics_address = ""
        self._notifier = notifier
        self._guard: AddressGuard | None = None
        self._shared: SharedMemory | None = None
        self._recorder = RecorderCare(config.record)
        self._metrics: MetricsServer | None = None
        self._server: grpc.aio.Server | None = None
        self._health = HealthService()
        self._readiness = Readiness(self._health, SERVICES)
        self._failed = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None
        self._memory_note = ""
        cores = config.engine.cores, config.server.cores, config.feed.cores
        self._placement = placement.choose(*cores, pin=config.engine.pin)
        self._clocks = ClockCare(config.clock)
        self._housekeeper: Housekeeper | None = None
        self._feeds = FeedCare(config.feed, self._clocks.offset_of, self._recorder)
        self._host = HostCare(config.tuning, self._placement.engine)

    # --- Start ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start everything and become ready.

        Raises:
            StartError, ListenError, ModelError, RecorderError, EngineError: what can't be had, and the mend.
        """
        config = self.config
        started_s = time.monotonic()
        address = parse_address(config.server.address)
        self._guard = guard_address(address)
        self._shared = SharedMemory.guard(config)
        if config.metrics.address:  # Tried again when it is bound; a port in use is to be told before all the work.
            check_port_free(self._metrics_address(), key="metrics.address")
        self._feeds.check(online=config.online.enabled and config.online.states > 0)
        self._place_threads()
        self._host.open()
        self._recorder.open()
        loop = asyncio.get_running_loop()
        self.engine, choice = await loop.run_in_executor(None, self._make_engine)
        self._device = DeviceCare(self.engine, choice, config.engine, partial(predictions_of, self.engine))
        self._host.begin(self.engine.device.backend.facts.bus_id if self.engine.device else "")
        self.models = ModelTable(self.engine, config.models.folder, half=config.engine.device_weights == "float16")
        self._link = LoopLink(self.engine, loop)
        self._budget = BudgetWatch(self.engine.buffers, config.budget, self._readiness)
        self._link.watch(self._budget.on_signal)
        folder = config.online.snapshot_folder
        online = OnlineTable(self.engine, Path(folder) if folder else None)
        self.sessions = SessionTable(self.engine, self._link, self.models, online, derived.session_limits(config))
        self._snapshots = SnapshotTaker(self.engine, self.sessions, self.models, self._recorder.recorder)
        self.predictions = PredictionService(
            self.sessions,
            in_flight_max=config.sessions.in_flight_max,
            budgets_ns=totals_of(config),
            daemon_version=self.version,
            daemon_id=self.daemon_id,
            hello_timeout_s=config.sessions.hello_timeout_s,
            record=self._recorder.record,
            attachments=self._shared.make(self.engine, self._link, self.sessions) if self._shared else None,
        )
        await self._listen(address)
        listening_s = time.monotonic()
        warm_ns = await loop.run_in_executor(None, self._warm_up)
        await loop.run_in_executor(None, self._feeds.prepare, self.engine, self.models, config.memory.lock)
        await loop.run_in_executor(None, self._host.finish)
        self._clocks.serve(self.engine)  # Before the feed, which maps its card's stamps by it.
        self._recorder.serve(self.engine)
        await self._feeds.start(self._link, self._placement.feed, self.predictions.subscribe.offer)
        looks = (self._clocks.look, self._device.look, self._budget.look, self._feeds.look)
        keeper = Keeper(self.engine, looks, self.predictions.keep, self._notifier, self._set_turning)
        self._self_watch = SelfWatch(
            self.engine, lambda: keeper.stalls, lambda: [one.source for one in self.sessions.sessions]
        )
        self._housekeeper = Housekeeper((self._clocks.look_slowly, self._self_watch.look))
        self._serve_metrics()
        self._keeping = asyncio.create_task(keeper.run())
        self._keeping.add_done_callback(self._keeper_ended)
        # Once, here: everything that lives as long as the daemon exists now, and a collection that walks through it
        # later would hold the event loop for milliseconds.
        gc.collect()
        gc.freeze()
        self._self_watch.open()
        self.predictions.ready = True
        self._readiness.put(Reason.STARTING, present=False)
        await self._readiness.settle()
        for fault in self._placement.verify():
            mend = "start the daemon with fewer CPU restrictions, or leave engine.cores and server.cores empty"
            _log.warning("thread_misplaced", detail=fault, mend=mend)
        if self._memory_note:
            _log.warning("memory_not_locked", detail=self._memory_note)
        model = self.models.active.model
        _log.info(
            "serving",
            address=self.address,
            metrics=self.metrics_address or "off",
            shared_memory=str(self._shared.address) if self._shared else "off",
            model=model.name,
            demonstration=model.demonstration,
            **self._device.described(),
            idle=config.engine.idle,
            arena_mib=round(self.engine.arena.used_bytes / 2**20, 1),
            warm_up_slowest_us=round(warm_ns / 1e3),
            start_s=round(time.monotonic() - started_s, 2),
            compile_s=round(time.monotonic() - listening_s, 2),
            **placement.describe(self._placement),
        )
        if model.demonstration:
            _log.warning("demonstration_model", model=model.name, detail=model.notice)
        self._notifier.ready(f"serving at {self.address}")

    def _place_threads(self) -> None:
        try:
            self._placement.apply_to_server()
        except OSError as error:
            raise StartError(
                f"server.cores: CPUs {sorted(self._placement.server)} can't be used ({error.strerror}); "
                "name CPUs that are online and allowed to this process, or leave it empty"
            ) from error

    async def _listen(self, address: UnixAddress | TcpAddress) -> None:
        server = make_server(self.config, self.sessions.count_refusal)
        server.add_generic_rpc_handlers((self.predictions.handler(),))
        model_pb2_grpc.add_ModelServiceServicer_to_server(
            ModelService(self.models, self.sessions, self._feeds, self._link), server
        )
        latency_pb2_grpc.add_LatencyServiceServicer_to_server(
            LatencyService(self.engine.buffers, self._budget.breaker_open), server
        )
        daemon_pb2_grpc.add_DaemonServiceServicer_to_server(DaemonService(self._parts()), server)
        await admin_services.set_health(self._health, SERVICES, serving=False)
        admin_services.add_health(server, self._health)
        admin_services.add_reflection(server, SERVICES)
        try:
            umask = os.umask(0o177)  # A Unix socket is closed to others from its first moment on.
            try:
                port = server.add_insecure_port(str(address))
            finally:
                os.umask(umask)
        except RuntimeError as error:
            raise ListenError(
                f"server.address: {address} can't be listened at ({error}); choose an address that is free"
            ) from error
        self.address = str(TcpAddress(address.host, port)) if isinstance(address, TcpAddress) else str(address)
        await server.start()
        self._server = server
        assert self._guard is not None, "the address is guarded before it is bound"
        self._guard.after_bind(self._shared.group if self._shared else None)
        if self._shared is not None:
            self._shared.listen()

    def _parts(self) -> DaemonParts:
        return DaemonParts(
            version=self.version,
            daemon_id=self.daemon_id,
            engine=self.engine,
            models=self.models,
            sessions=self.sessions,
            predictions=self.predictions,
            readiness=self._readiness,
            budget=self._budget,
            clocks=self._clocks,
            device=self._device,
            feeds=self._feeds,
            self_watch=lambda: self._self_watch.snapshot() if self._housekeeper else None,
        )

    def _make_engine(self) -> tuple[Engine, Choice]:
        """Choose what predicts, and make the engine on it. Runs on an executor thread: a GPU takes seconds."""
        config = self.config
        self._clocks.begin(self._feeds.card, needed=config.feed.stamps == "hardware")
        sizes, settings = derived.engine_sizes(config), derived.engine_settings(config, self._placement.engine)
        try:
            return make_engine(config.engine, sizes, settings)
        except DeviceError as error:
            raise StartError(f"engine.device: {error}") from error

    def _warm_up(self) -> int:
        """Load, compile, start, warm up, lock. Runs on an executor thread while health answers NOT_SERVING."""
        try:
            return self._warm_up_engine()
        except DeviceError as error:
            if self.config.engine.device != "auto" or not self.engine.alive:
                raise StartError(f"engine.device: {error}") from error
            _log.warning("device_refused", detail=str(error), mend="the CPU predicts; see device_lost")
            return self.engine.warm_up_on_cpu(self.models.active.slot)

    def _warm_up_engine(self) -> int:
        self.models.load_first(self.config.models.active)  # First: a bad file is to be told before all the work.
        if self.engine.device is None:  # Else it was compiled when it was chosen.
            self.engine.compile()
        self.engine.arena.touch()
        if self.config.memory.lock != "off":
            self._memory_note = self.engine.arena.lock()
            if self._memory_note and self.config.memory.lock == "on":
                raise StartError(f"memory.lock: {self._memory_note}")
        self._clocks.choose(self.engine)
        self.engine.start()
        return self.engine.warm_up(self.models.active.slot)

    def _serve_metrics(self) -> None:
        if not self.config.metrics.address:
            return
        self._metrics = MetricsServer(self._metrics_address(), self.snapshot, self.version)
        self.metrics_address = str(self._metrics.address)

    def _metrics_address(self) -> TcpAddress:
        address = parse_address(self.config.metrics.address)
        assert isinstance(address, TcpAddress), "the configuration allows TCP alone"
        return address

    def snapshot(self) -> MetricsSnapshot:
        """Return what the metrics show; called from the metrics server's thread."""
        return self._snapshots.take(
            serving=self.predictions.ready and not self.predictions.draining,
            arena_locked=not self._memory_note and self.config.memory.lock != "off",
            budget=self._budget.snapshot(),
            clocks=self._clocks.snapshot(),
            self_watch=self._self_watch.snapshot(),
            device=self._device.snapshot(),
            host=self._host.looked.counts(),
            subscriptions=self.predictions.subscribe.counts,
            feed=self._feeds.snapshot(),
        )

    # --- Service --------------------------------------------------------------------------------------------------

    async def _set_turning(self, turning: bool) -> None:
        self._readiness.put(Reason.STALLED, present=not turning)

    def _keeper_ended(self, keeping: asyncio.Task[None]) -> None:
        """Stop the daemon where the keeper ended: without it no silent client is noticed and no grace ends."""
        if keeping.cancelled():
            return
        if keeping.exception() is not None:
            _log.error("keeper_failed", exc_info=keeping.exception(), mend="report this; the daemon stops")
        self._failed.set()

    async def serve(self, stop: asyncio.Event) -> bool:
        """Serve until *stop* is set or the engine is gone. Returns whether the end was wanted."""
        waits = [asyncio.create_task(stop.wait()), asyncio.create_task(self._failed.wait())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        return stop.is_set()

    # --- Stop -----------------------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Drain and stop, within ``server.drain_s`` and a little; may follow a start that failed half-way."""
        self._notifier.stopping("draining")
        await self._health.enter_graceful_shutdown()
        self._stop_quietly(self._feeds.stop)  # First: what it has given to the engine is answered.
        if self._server is not None:
            drain_s = self.config.server.drain_s
            streams = self.predictions.streams
            _log.info("draining", sessions=len(self.sessions.sessions), streams=streams, bound_s=drain_s)
            try:
                async with asyncio.timeout(drain_s):
                    await self.predictions.drain()
            except TimeoutError:
                _log.warning("drain_timeout", streams=self.predictions.streams, bound_s=drain_s)
            await self._server.stop(grace=0.2)
        if self._shared is not None:
            await self._shared.close()
        if self._keeping is not None:
            self._keeping.cancel()
        if self._housekeeper is not None:
            self._housekeeper.close()
            self._self_watch.close()
        if hasattr(self, "sessions"):
            await self.sessions.settle()
        self._stop_quietly(self._stop_engine)
        if hasattr(self, "sessions"):  # Those that wait to be resumed, or could not be drained.
            self._stop_quietly(self.sessions.keep_online)
        if self._metrics is not None:
            self._metrics.close()
        self._clocks.close()
        self._stop_quietly(self._recorder.close)
        self._host.close()
        if self._guard is not None:
            self._guard.release()
        if self._shared is not None:
            self._shared.release()
        _log.info("stopped")

    def _stop_engine(self) -> None:
        if hasattr(self, "_device"):
            self._device.close()
        if hasattr(self, "_link"):
            self._link.close()
        if hasattr(self, "engine"):
            self._feeds.close()
            self.engine.stop()
            self.engine.close()

    def _stop_quietly(self, part: Callable[[], None]) -> None:
        """Run one part of the stop; a failure is logged, and the other parts still run."""
        try:
            part()
        except Exception:  # noqa: BLE001 - Policy: stopping goes on whatever one part does.
            _log.exception("stop_failed")
