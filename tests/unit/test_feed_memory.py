"""The feed's memory: its sum, and words that each have one meaning."""

import pytest

from penstock_daemon.arena import Arena
from penstock_daemon.feed import memory
from penstock_daemon.feed.memory import Malformed, Refusal, feed_bytes, make_feed_memory


@pytest.mark.parametrize(("instruments", "held"), [(1, 64), (33, 4096), (1000, 65_536)])
def test_the_sum_covers_what_is_taken(instruments, held):
    arena = Arena(feed_bytes(instruments, held))
    made = make_feed_memory(arena.take, instruments, held)
    assert made.slots.shape == (held, memory.SLOT_COLUMNS)
    assert made.held.nbytes == held * memory.MESSAGE_BYTES


def test_words_do_not_overlap():
    wide = {
        "PACKETS": memory.LINES,
        "MALFORMED": len(Malformed),
        "REFUSED": len(Refusal),
        "SOCKET_DROPS": memory.LINES,
    }
    by_line = ("FAR_NEXT", "FAR_COUNT", "OTHER_HIGH", "OTHER_LOW", "OTHER_COUNT", "OTHER_NEXT")
    wide |= dict.fromkeys((*by_line, "BEHIND_COUNT", "BEHIND_NEXT"), memory.LINES)
    names = [name for name in vars(memory) if name.isupper()]
    first = names.index("STOP")
    last = names.index("FEED_WORDS")
    taken = [
        vars(memory)[name] + offset
        for name in names[first:last]
        if isinstance(vars(memory)[name], int)
        for offset in range(wide.get(name, 1))
    ]
    assert len(taken) == len(set(taken))
    assert max(taken) < memory.FEED_WORDS
