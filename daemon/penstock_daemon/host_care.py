"""The host while a daemon starts and serves: what of it costs latency, said once, and wake-ups that are kept short.

    open     /dev/cpu_dma_latency is held, if asked for, until close or the process's end
    begin    a thread looks at the host while the engine warms up
    finish   one line for each thing that costs latency; where tuning.require asks for more, a refusal to start

Nothing of the host is changed but what the kernel ties to the open file. The look runs beside the engine's
warm-up, and is waited for WAIT_S at most.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import structlog

from penstock_daemon.config_fields import TuningConfig
from penstock_daemon.derived import StartError
from penstock_host.affinity import format_cpus
from penstock_host.checklist.catalogue import ITEM_IDS
from penstock_host.checklist.items import Severity, Status
from penstock_host.daemon_checks import COSTLY, PROCESS_ITEMS, Concern, Look, Looked, Question, concerns
from penstock_host.faults import ProfileError, WriteRefusedError
from penstock_host.latency import DEVICE, no_sleep_states
from penstock_host.profile import load_profile

WAIT_S: Final = 1.0  # Once all else is ready; for the host, and again for the process, a matter of milliseconds.

_REFUSED: Final[dict[str, tuple[Severity, ...]]] = {
    "none": (),
    "must": (Severity.MUST,),
    "should": (Severity.MUST, Severity.SHOULD),
}
_LEVELS: Final = {Severity.MUST: logging.WARNING, Severity.SHOULD: logging.INFO, Severity.INFO: logging.DEBUG}

_log = structlog.get_logger("penstock.host")


class HostCare:
    """Looks at the host of one daemon.

    Args:
        config: what is asked of the host.
        engine_cpus: where the engine is pinned; empty where it is not.
        root: of the host's files; tests give a tree.
        process: the daemon's; None for this one.
    """

    def __init__(
        self, config: TuningConfig, engine_cpus: frozenset[int], *, root: Path = Path("/"), process: int | None = None
    ) -> None:
        self.looked = Looked()
        self._config = config
        self._engine_cpus = engine_cpus
        self._root = root
        self._process = os.getpid() if process is None else process
        self._held = contextlib.ExitStack()
        self._look: Look | None = None
        self._question: Question | None = None

    def open(self) -> None:
        """Read the profile, and hold what is asked for.

        Raises:
            StartError: it can't be had.
        """
        config = self._config
        try:
            profile = load_profile(Path(config.profile) if config.profile else None, {}, ITEM_IDS)
        except ProfileError as error:
            faults = "; ".join(line.removeprefix("--profile: ") for line in str(error).splitlines())
            raise StartError(
                f"tuning.profile: {faults}; mend {config.profile}, or leave tuning.profile empty"
            ) from error
        self._question = Question(self._process, self._engine_cpus, profile, root=self._root)
        if config.cpu_dma_latency_us < 0:
            return
        device = self._root / DEVICE.lstrip("/")
        try:
            self._held.enter_context(no_sleep_states(device, limit_us=config.cpu_dma_latency_us))
        except WriteRefusedError as error:
            raise StartError(
                f"tuning.cpu_dma_latency_us: must be -1 where the device can't be held, was {config.cpu_dma_latency_us} "
                f"({error}); let the daemon's user write {DEVICE}, see deploy/README.md"
            ) from error

    def begin(self, gpu: str = "") -> None:
        """Let a thread look at the host; for the engine's GPU too, where it has one.

        Args:
            gpu: its PCI address; empty for none.
        """
        assert self._question is not None, "open comes before begin"
        self._question = replace(self._question, gpu=gpu)
        self._look = Look(self._question)

    def finish(self) -> None:
        """Say what costs latency; to be called once threads are placed and memory is locked. Not for the event loop.

        Raises:
            StartError: tuning.require asks for more than the host is.
        """
        assert self._question is not None, "begin comes before finish"
        assert self._look is not None, "begin comes before finish"
        waiting_s = time.monotonic()
        self.looked = self._look.looked(WAIT_S) + Look(self._question, PROCESS_ITEMS).looked(WAIT_S)
        looked, require = self.looked, self._config.require
        if looked.fault:
            _log.warning("host_not_divided", detail=looked.fault, mend="choose other engine.cores, or tuning.profile")
        for finding in looked.findings:
            if finding.status in COSTLY:
                for concern in concerns(finding):
                    _say(concern)
        _log.info(
            "host_checked",
            require=require,
            hot_cores=format_cpus(self._question.hot_cpus) or "none",
            costly=_listed([finding.item.item_id for finding in looked.costly(tuple(Severity))]),
            unreadable=_listed(looked.ids(Status.UNREADABLE)),
            pending=_listed(looked.ids(Status.PENDING)),
            missed=_listed(looked.missed),
            waited_s=round(time.monotonic() - waiting_s, 3),
        )
        refused = looked.costly(_REFUSED[require])
        if require != "none" and (refused or looked.fault):
            raise StartError(self._refusal([f"{one.item.item_id} {one.item.title}" for one in refused]))

    def close(self) -> None:
        """Let go of what is held; the kernel then forgets it. May be called twice."""
        self._held.close()

    def _refusal(self, items: Sequence[str]) -> str:
        """Return the sentence of a start that is refused for *items*, or for cores that can't be set aside."""
        assert self._question is not None, "the host was looked at"
        reasons = [self.looked.fault] if self.looked.fault else []
        if items:
            reasons.append(f"{len(items)} of its items cost latency ({', '.join(items)})")
        plan = "penstock-tune plan"
        if self._config.profile:
            plan += f" --profile {self._config.profile}"
        if self._question.hot_cpus and self._question.profile.hot_cores is None:
            plan += f" --hot-cores {format_cpus(self._question.hot_cpus)}"
        if items:
            plan += f" --only {','.join(item.split()[0] for item in items)}"
        return (
            f'tuning.require: must be "none" on this host, was "{self._config.require}": {"; ".join(reasons)}; '
            f"{plan} prints the mends, and so does the log"
        )


def _say(concern: Concern) -> None:
    item = concern.item
    _log.log(
        _LEVELS[item.severity],
        "host_costs_latency",
        item=item.item_id,
        what=item.title,
        severity=item.severity.value,
        status=concern.status.value,
        target=concern.target,
        want=concern.wanted,
        was=concern.found,
        mend=concern.mend,
    )


def _listed(ids: Sequence[str]) -> str:
    return " ".join(ids) or "none"
