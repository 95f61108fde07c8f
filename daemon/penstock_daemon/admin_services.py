"""ModelService, health and reflection: all that is neither a tick nor its time (``latency_service``).

These are rare calls; they run on the event loop beside the sessions, and what is slow in them (reading a model file)
goes to the executor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection, reflection_pb2

from penstock.v1 import model_pb2, model_pb2_grpc
from penstock_daemon import faults
from penstock_daemon.feed.care import FeedCare
from penstock_daemon.loop_link import LoopLink
from penstock_daemon.model_table import ModelTable
from penstock_daemon.session_table import SessionTable
from penstock_kernels.model import ModelError

REFLECTION_V1: Final = "grpc.reflection.v1.ServerReflection"

_Response = TypeVar("_Response")

_log = structlog.get_logger("penstock.admin")


async def _answering(context: Any, work: Awaitable[_Response], count: Callable[[str], None]) -> _Response:
    """Await *work*; a fault of the caller is counted and becomes the RPC's status."""
    try:
        return await work
    except faults.SessionFault as fault:
        count(fault.reason)
        _log.info("call_refused", reason=fault.reason, detail=str(fault))
        await context.abort(fault.code, str(fault), fault.trailers())
        raise AssertionError("abort raises") from fault


class ModelService(model_pb2_grpc.ModelServiceServicer):
    """Lists, describes, loads and activates models."""

    def __init__(self, models: ModelTable, sessions: SessionTable, feeds: FeedCare, link: LoopLink) -> None:
        self._feeds = feeds
        self._link = link
        self._models = models
        self._sessions = sessions
        self._changes: set[asyncio.Task[Any]] = set()
        self._changing = asyncio.Lock()  # One change at a time: a load and a switch look at the same slots.

    async def ListModels(self, _request: Any, _context: Any) -> model_pb2.ListModelsResponse:  # noqa: N802 - gRPC's.
        """Name every loaded model."""
        return model_pb2.ListModelsResponse(
            models=[entry.summary for entry in self._models.entries], active=self._models.active.model.name
        )

    async def DescribeModel(self, request: Any, context: Any) -> model_pb2.DescribeModelResponse:  # noqa: N802 - gRPC's.
        """Tell all about one model."""

        async def describe() -> model_pb2.DescribeModelResponse:
            return self._models.find(request.name, field_name="DescribeModelRequest.name").describe()

        return await _answering(context, describe(), self._sessions.count_refusal)

    async def LoadModel(self, request: Any, context: Any) -> model_pb2.LoadModelResponse:  # noqa: N802 - gRPC's.
        """Read a model file into a free slot."""

        async def load() -> model_pb2.LoadModelResponse:
            async with self._changing:
                loaded = await asyncio.to_thread(self._models.read, request.file)
                try:
                    entry = self._models.place(loaded)
                except ModelError as error:
                    raise faults.invalid(
                        "MODEL_REFUSED", field="LoadModelRequest.file", value=request.file, mend=str(error)
                    ) from error
            _log.info("model_loaded", model=entry.model.name, version=entry.model.version, slot=entry.slot)
            return model_pb2.LoadModelResponse(model=entry.summary)

        return await _answering(context, self._whole(load()), self._sessions.count_refusal)

    async def ActivateModel(self, request: Any, context: Any) -> model_pb2.ActivateModelResponse:  # noqa: N802 - gRPC's.
        """Make a loaded model the one of new sessions, and on request of the open ones."""

        async def activate() -> model_pb2.ActivateModelResponse:
            async with self._changing:
                entry = self._models.find(request.name, field_name="ActivateModelRequest.name")
                moving = self._sessions.check_switch(entry) if request.open_sessions else []
                if request.open_sessions:
                    self._feeds.check_switch(entry)
                self._models.activate(entry)  # First: what opens meanwhile is not left behind.
                switched = await self._sessions.switch_model(moving, entry)
                if request.open_sessions:
                    await self._feeds.switch_model(entry, self._link)
            _log.info("model_activated", model=entry.model.name, sessions_switched=switched)
            return model_pb2.ActivateModelResponse(model=entry.summary, sessions_switched=switched)

        return await _answering(context, self._whole(activate()), self._sessions.count_refusal)

    async def _whole(self, change: Coroutine[Any, Any, _Response]) -> _Response:
        """Carry a change through even where its caller goes away in the middle: half a switch would be none's wish."""
        task = asyncio.create_task(change)
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        return await asyncio.shield(task)


class HealthService(health_aio.HealthServicer):
    """grpc.health.v1 with Check, Watch and List."""

    async def List(self, _request: Any, _context: Any) -> health_pb2.HealthListResponse:  # noqa: N802 - gRPC's.
        """Return the status of every service."""
        return health_pb2.HealthListResponse(
            statuses={
                service: health_pb2.HealthCheckResponse(status=status)
                for service, status in self._server_status.items()
            }
        )


async def set_health(health: HealthService, services: tuple[str, ...], *, serving: bool) -> None:
    """Set the status of the daemon as a whole and of each service."""
    status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
    for service in ("", *services):
        await health.set(service, status)


def add_health(server: grpc.aio.Server, health: HealthService) -> None:
    """Add grpc.health.v1 to a server."""
    health_pb2_grpc.add_HealthServicer_to_server(health, server)


def add_reflection(server: grpc.aio.Server, services: tuple[str, ...]) -> None:
    """Add reflection v1 and v1alpha: the same messages under two names."""
    names = (*services, "grpc.health.v1.Health", REFLECTION_V1, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    servicer: Callable[..., Any] = reflection.aio.ReflectionServicer(service_names=names).ServerReflectionInfo
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                REFLECTION_V1,
                {
                    "ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(
                        servicer,
                        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
                        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
                    )
                },
            ),
        )
    )
