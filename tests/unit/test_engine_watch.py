"""Whether the engine turns is told from its own count of passes, over an engine that really runs."""

from __future__ import annotations

import os
import time

from penstock_daemon import engine_memory
from penstock_daemon.engine_watch import STALLED_LOOKS, EngineWatch
from support.device_engines import kept_asleep
from support.engines import PATIENCE_S, running_engine


def test_engine_without_ticks_turns_and_one_that_is_held_up_does_not() -> None:
    with running_engine() as engine:
        words = engine.buffers.words
        watch = EngineWatch(words)

        def look_after_a_pass() -> bool:
            passes, deadline_s = words[engine_memory.PASSES], time.monotonic() + PATIENCE_S
            os.eventfd_write(engine.engine_event, 1)
            while words[engine_memory.PASSES] == passes:
                assert time.monotonic() < deadline_s
                time.sleep(0.001)
            return watch.turns()

        assert all(look_after_a_pass() for _ in range(2 * STALLED_LOOKS))
        with kept_asleep(engine):  # Whoever has the states keeps them, as a call that never returns would.
            time.sleep(0.05)  # A pass that was under way has ended.
            watch = EngineWatch(words)
            assert watch.turns()
            looks = [watch.turns() for _ in range(STALLED_LOOKS + 3)]
        assert looks.count(True) == STALLED_LOOKS - 1
        assert looks == sorted(looks, reverse=True), "once it is held up it stays so until it turns"
        assert look_after_a_pass()
