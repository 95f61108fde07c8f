"""Numbers that follow from the configuration: how large the engine's memory is, how it runs, what sessions may take.

Pure functions of a Config without a fault; what only the kernels can refuse is refused here.
"""

from __future__ import annotations

import os
from typing import Final

from penstock_daemon.addresses import UNIX_PATH_BYTES_MAX, UnixAddress, parse_address
from penstock_daemon.budgets import OLD_TICKS, bounds_of
from penstock_daemon.config import Config
from penstock_daemon.config_feed import split_instruments
from penstock_daemon.engine import EngineSettings
from penstock_daemon.engine_memory import Idle
from penstock_daemon.engine_sizes import EngineSizes
from penstock_daemon.session_table import SessionLimits
from penstock_kernels.features import FEATURES
from penstock_kernels.online_layout import OnlineSettings, regressors
from penstock_kernels.online_rls import OnlineError, check_forgetting

_IDLE: Final = {"spin": Idle.SPIN, "spin_then_sleep": Idle.SPIN_THEN_SLEEP, "block": Idle.BLOCK}


class StartError(Exception):
    """The daemon can't start; the sentence says what to mend."""


def attach_address(config: Config) -> UnixAddress | None:
    """Return where strategies attach through shared memory; None where they may not."""
    shared = config.shared_memory
    if not shared.enabled:
        return None
    if shared.address:
        address = parse_address(shared.address)
        assert isinstance(address, UnixAddress), "the configuration allows Unix sockets alone"
        return address
    server = parse_address(config.server.address)
    if not isinstance(server, UnixAddress):
        return None
    path = server.path.with_name(server.path.name + ".shm")
    return UnixAddress(path) if len(os.fsencode(path)) <= UNIX_PATH_BYTES_MAX else None


def engine_sizes(config: Config) -> EngineSizes:
    """Return how much memory the tick path gets.

    Raises:
        StartError: online readouts can't be had as configured.
    """
    instruments = feed_instruments(config)
    return EngineSizes(
        sources=config.sessions.max + 1 + (1 if instruments else 0),  # One is the warm-up's, one the feed's.
        slots=config.sessions.in_flight_max,
        states=config.sessions.states_max + 1 + instruments,  # As above.
        model_slots=config.models.slots,
        units_max=config.models.units_max,
        dense_units_max=config.models.dense_units_max,
        online_states=config.online.states if config.online.enabled else 0,
        segment_instruments=config.sessions.instruments_max if attach_address(config) is not None else 0,
        online=_online_settings(config),
        tap_ticks=config.record.tap_ticks if config.record.folder and attach_address(config) is not None else 0,
    )


def feed_instruments(config: Config) -> int:
    """Return how many instruments the feed has; 0 where there is no feed."""
    return len(split_instruments(config.feed.instruments)) if config.feed.group else 0


def _online_settings(config: Config) -> OnlineSettings:
    online = config.online
    try:
        check_forgetting(online.forgetting, regressors(FEATURES, online.units), field="online.forgetting")
        return OnlineSettings(
            units=online.units,
            forgetting=online.forgetting,
            trace_max=online.trace_max,
            updates_per_tick=online.updates_per_tick,
            pending_max=online.pending_max,
        )
    except OnlineError as error:
        raise StartError(str(error)) from error


def engine_settings(config: Config, cpus: frozenset[int]) -> EngineSettings:
    """Return how the engine runs, on *cpus*; empty leaves its thread where it is."""
    idle = _IDLE[config.engine.idle]
    return EngineSettings(
        idle=idle,
        spin_ns=config.engine.spin_us * 1_000 if idle == Idle.SPIN_THEN_SLEEP else 0,
        batch_max=config.engine.batch_max,
        assist_max=config.engine.assist_max if idle == Idle.BLOCK else 0,
        budget_ns=config.budget.total_us * 1_000,
        stale_ns=config.budget.stale_us * 1_000,
        bounds=bounds_of(config),
        breaker_run=config.budget.breaker_run,
        old_ticks=OLD_TICKS[config.budget.old_ticks],
        cpus=cpus,
    )


def session_limits(config: Config) -> SessionLimits:
    """Return what sessions may take."""
    sessions = config.sessions
    return SessionLimits(
        sessions_max=sessions.max,
        instruments_max=sessions.instruments_max,
        resumable_max=sessions.resumable_max,
        resume_grace_ns=int(sessions.resume_grace_s * 1e9),
        heartbeat_interval_ns=int(sessions.heartbeat_interval_s * 1e9),
        segments_max=config.shared_memory.segments_max if attach_address(config) is not None else 0,
        feed_instruments=feed_instruments(config),
    )
