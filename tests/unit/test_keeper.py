"""What the keeper makes of an engine that stands still, over one that really runs and really does."""

from __future__ import annotations

import asyncio

import pytest
from grpc_health.v1 import health_pb2

from penstock_daemon import keeper
from penstock_daemon.admin_services import HealthService
from penstock_daemon.engine_watch import STALLED_LOOKS
from penstock_daemon.keeper import Keeper
from penstock_daemon.notify import Notifier
from penstock_daemon.readiness import Readiness, Reason
from support.device_engines import kept_asleep
from support.engines import PATIENCE_S, running_engine

LOOK_S = 0.03  # So that a stall is told within half a second; an engine without ticks makes a pass every 0.2 s.


async def told(readiness: Readiness, health: HealthService, status: int) -> None:
    """Wait until health says *status*."""
    request = health_pb2.HealthCheckRequest(service="")
    async with asyncio.timeout(PATIENCE_S):
        while True:
            await readiness.settle()
            if (await health.Check(request, None)).status == status:
                return
            await asyncio.sleep(LOOK_S)


def test_engine_that_stands_still_is_told_to_health_until_it_turns_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert LOOK_S * STALLED_LOOKS > 0.3, "an idle engine is not taken for one that stands still"
    monkeypatch.setattr(keeper, "KEEP_S", LOOK_S)
    health = HealthService()
    readiness = Readiness(health, ())
    looks: list[int] = []

    turned = asyncio.Event()

    async def set_turning(turning: bool) -> None:
        readiness.put(Reason.STALLED, present=not turning)
        if turning:
            turned.set()

    async def body() -> None:
        readiness.put(Reason.STARTING, present=False)
        await told(readiness, health, health_pb2.HealthCheckResponse.SERVING)
        kept = Keeper(
            engine, [lambda: looks.append(1)], lambda _now_ns, _late_ns: None, Notifier.from_environ({}), set_turning
        )
        keeping = asyncio.create_task(kept.run())
        with kept_asleep(engine):
            await told(readiness, health, health_pb2.HealthCheckResponse.NOT_SERVING)
            assert readiness.reasons == {Reason.STALLED}
            readiness.put(Reason.BREAKER, present=True)  # As it may while the engine stands: both must end.
            turned.clear()
        async with asyncio.timeout(PATIENCE_S):
            await turned.wait()
        await told(readiness, health, health_pb2.HealthCheckResponse.NOT_SERVING)
        readiness.put(Reason.BREAKER, present=False)
        await told(readiness, health, health_pb2.HealthCheckResponse.SERVING)
        assert kept.stalls >= 1
        assert len(looks) >= STALLED_LOOKS
        assert not keeping.done()
        keeping.cancel()

    with running_engine() as engine:
        asyncio.run(body())
