"""Which CPUs the engine and the event loop get, and whether they really have them.

The event loop's thread, and those that libraries have started by then, are placed before gRPC starts, since gRPC's own
threads inherit their CPUs; what came of it is read back from /proc/self/task once all threads run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from penstock_host import affinity

_CPUS_FOR_OWN_ENGINE: Final = 4  # With fewer, a CPU of its own would starve the event loop.
_ENGINE_THREAD: Final = "penstock-engine"
_FEED_THREAD: Final = "penstock-feed"


@dataclass(frozen=True)
class Placement:
    """Where threads go; empty sets leave them to the kernel."""

    engine: frozenset[int]
    server: frozenset[int]
    reason: str
    feed: frozenset[int] = frozenset()  # None of its own: it runs where the server does.

    def apply_to_server(self) -> None:
        """Place the threads that there are and all that they will start; to be called before gRPC and the engine start.

        Raises:
            OSError: the kernel refused.
        """
        if self.server:
            affinity.pin_all_threads(self.server)

    def verify(self) -> list[str]:
        """Return a sentence for each thread that is not where it was put, as the kernel says now."""
        faults = []
        for thread in affinity.threads():
            wanted = self.server
            if thread.name == _ENGINE_THREAD:
                wanted = self.engine
            elif thread.name == _FEED_THREAD and self.feed:
                wanted = self.feed
            if wanted and not thread.cpus <= wanted:
                faults.append(
                    f"thread {thread.name} ({thread.thread_id}) may run on CPUs {affinity.format_cpus(thread.cpus)}, "
                    f"wanted {affinity.format_cpus(wanted)}"
                )
        return faults


def choose(engine: tuple[int, ...], server: tuple[int, ...], feed: tuple[int, ...] = (), *, pin: bool) -> Placement:
    """Decide from the configuration and the CPUs that this process may use.

    Args:
        engine: engine.cores; empty is automatic.
        server: server.cores; empty is automatic.
        feed: feed.cores; empty is where the server runs.
        pin: engine.pin.
    """
    if not pin:
        return Placement(frozenset(), frozenset(), "engine.pin is off")
    online = affinity.online_cpus()
    if engine or server:
        rest = online - frozenset(engine)
        chosen = frozenset(server) or (rest - frozenset(feed) or rest or online)
        return Placement(frozenset(engine), chosen, "as configured", frozenset(feed))
    if len(online) < _CPUS_FOR_OWN_ENGINE:
        return Placement(
            frozenset(),
            frozenset(),
            f"{len(online)} CPUs are shared; with {_CPUS_FOR_OWN_ENGINE} the engine gets its own",
            frozenset(feed),
        )
    own = frozenset({max(online - frozenset(feed) or online)})
    rest = online - own
    return Placement(own, rest - frozenset(feed) or rest, "the engine has the last CPU to itself", frozenset(feed))


def describe(placement: Placement) -> dict[str, object]:
    """Return what the log shows at the start: threads by name, with their CPUs as the kernel says."""
    places: dict[str, set[str]] = {}
    for thread in affinity.threads():
        places.setdefault(thread.name, set()).add(affinity.format_cpus(thread.cpus))
    return {
        "reason": placement.reason,
        "threads": {name: " ".join(sorted(cpus)) for name, cpus in sorted(places.items())},
    }
