"""What came between two answers of ``penstock latency --json``: their difference, count by count.

    later = earlier + difference            of the same daemon, which has not been started again in between

Counts only grow while a daemon lives, so no daemon has to remember who asked when. A maximum has no difference: that of
the later answer stands.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from penstock_client.errors import LocalUsageError

_ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
_Key = tuple[str, ...]


def read_answer(path: Path) -> dict[str, Any]:
    """Return what an earlier ``penstock latency --json`` has written.

    Raises:
        LocalUsageError: it can't be read, is none, or is of some seconds alone.
    """
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(_ANSWER_BYTES_MAX))
        answer = {"since_ns": int(found["since_ns"]), "budgets": found["budgets"], "intervals": found["intervals"]}
        whole = found["interval_s"] is None
        if whole:
            _counts(answer)
    except OSError as error:
        raise LocalUsageError(f"--since: {path} can't be read ({error.strerror})") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise LocalUsageError(f"--since: {path} was not written by penstock latency --json") from error
    if not whole:
        raise LocalUsageError(f"--since: {path} is of some seconds alone; write one without --seconds")
    return answer


def difference(later: dict[str, Any], earlier: dict[str, Any]) -> dict[str, Any]:
    """Return *later* without what *earlier* has already.

    Args:
        later: an answer of one interval, of everything since the daemon started.
        earlier: as ``read_answer`` returns it.

    Raises:
        LocalUsageError: they are of two starts of a daemon.
    """
    if later["since_ns"] != earlier["since_ns"]:
        raise LocalUsageError("--since: that answer is of another daemon, or this one was started again after it")
    (interval,) = later["intervals"]
    (before,) = earlier["intervals"]
    counted, sums, exceeded = _counts(earlier)
    histograms = []
    for one in interval["histograms"]:
        key = _key(one)
        old = counted.get(key, {})
        added = [
            (bucket, count - old.get(bucket, 0)) for bucket, count in zip(one["buckets"], one["counts"], strict=True)
        ]
        added = [(bucket, count) for bucket, count in added if count]
        if added:
            buckets, counts = (list(column) for column in zip(*added, strict=True))
            sum_ns, negative = sums.get(key, (0, 0))
            changed = {"sum_ns": one["sum_ns"] - sum_ns, "negative": one["negative"] - negative}
            histograms.append(one | {"buckets": buckets, "counts": counts} | changed)
    budgets = [one | {"exceeded": one["exceeded"] - exceeded.get(_key(one), 0)} for one in later["budgets"]]
    changed_answer = {"intervals": [interval | {"histograms": histograms}], "budgets": budgets}
    return later | changed_answer | {"since_taken_ns": before["taken_ns"]}


def _counts(
    answer: dict[str, Any],
) -> tuple[dict[_Key, dict[int, int]], dict[_Key, tuple[int, int]], dict[_Key, int]]:
    """Return an answer's counts by bucket, sums and negatives of each histogram, and what was over each bound."""
    (interval,) = answer["intervals"]
    int(interval["taken_ns"])
    histograms = interval["histograms"]
    counted = {_key(one): dict(zip(one["buckets"], one["counts"], strict=True)) for one in histograms}
    sums = {_key(one): (int(one["sum_ns"]), int(one["negative"])) for one in histograms}
    return counted, sums, {_key(one): int(one["exceeded"]) for one in answer["budgets"]}


def _key(one: dict[str, Any]) -> _Key:
    return one["path"], one.get("pace", ""), one["stage"]
