"""What a subscriber has received: counts, flags, and how old predictions were when they came.

    from the wire to receipt = received_ns (this host) - wire_ns (the daemon's kernel or card)

On one host both are the same clock; across hosts the difference holds the clocks' disagreement, and may be below 0. All of it
is kept in counts of fixed size, so that a subscription of days takes no more memory than one of seconds.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.v1 import prediction_pb2 as pb
from penstock.v1.histogram import BUCKETS, lower_edges_ns, percentile_ns
from penstock.v1.records import PredictionFlag, PredictionHash
from penstock_client.subscription_core import FeedBatch
from penstock_client.wording import microseconds_text

_SHARES: Final = {"p50": 0.5, "p99": 0.99, "p999": 0.999}


class Ages:
    """Durations in a histogram, with their exact largest and how many were below 0."""

    def __init__(self) -> None:
        self._edges_ns = lower_edges_ns()
        self._counts = np.zeros(BUCKETS, np.int64)
        self._max_ns = 0
        self.negative = 0

    def add(self, ages_ns: NDArray[np.int64]) -> None:
        """Count *ages_ns*, shape (any,)."""
        if not len(ages_ns):
            return
        self.negative += int(np.count_nonzero(ages_ns < 0))
        buckets = np.searchsorted(self._edges_ns, np.maximum(ages_ns, 0), side="right") - 1
        np.add.at(self._counts, buckets, 1)
        self._max_ns = max(self._max_ns, int(ages_ns.max()))

    def figures(self) -> dict[str, float] | None:
        """Return count, percentiles (to 1 %) and the largest, in microseconds; None where there are none."""
        count = int(self._counts.sum())
        if not count:
            return None
        shown = {f"{name}_us": percentile_ns(self._counts, share) / 1e3 for name, share in _SHARES.items()}
        return {"count": count, **shown, "max_us": self._max_ns / 1e3, "negative": self.negative}


class Received:
    """What one subscription has received so far.

    Args:
        whole: whether every prediction of the feed is wanted: then missing sequences are known, and so is the hash of all.
    """

    def __init__(self, *, whole: bool) -> None:
        self._whole = whole
        self._hash = PredictionHash()
        self._next_sequence: int | None = None
        self._flags = dict.fromkeys(PredictionFlag, 0)
        self._from_wire = Ages()
        self._from_daemon = Ages()
        self.predictions = self.batches = self.gaps = self.missing = 0
        self.first_ns = self.last_ns = 0

    def add(self, batch: FeedBatch, predictions: NDArray[np.void]) -> None:
        """Take in *predictions*, of *batch* from its start on."""
        self.batches += 1
        self.gaps += batch.after_gap
        self.first_ns = self.first_ns or batch.received_ns
        self.last_ns = batch.received_ns
        self.predictions += len(predictions)
        self._hash.update(predictions)
        if self._whole and len(predictions):
            first, last = int(predictions["sequence"][0]), int(predictions["sequence"][-1])
            if self._next_sequence is not None and first > self._next_sequence:
                self.missing += first - self._next_sequence
            self._next_sequence = last + 1
        for flag in self._flags:
            self._flags[flag] += int(np.count_nonzero(predictions["flags"] & np.uint32(flag)))
        wire_ns = predictions["wire_ns"].astype(np.int64)
        self._from_wire.add(batch.received_ns - wire_ns[wire_ns > 0])
        self._from_daemon.add(np.array([batch.received_ns - batch.sent_ns]))

    def figures(self, subscribed: pb.Subscribed) -> dict[str, Any]:
        """Return everything that ``--json`` prints."""
        seconds = (self.last_ns - self.first_ns) / 1e9
        return {
            "feed": subscribed.feed,
            "model": subscribed.model.name,
            "instruments": len(subscribed.instruments),
            "predictions": self.predictions,
            "batches": self.batches,
            "seconds": round(seconds, 6),
            "predictions_per_s": round(self.predictions / seconds, 1) if seconds > 0 else None,
            "gaps": self.gaps,
            "missing": self.missing if self._whole else None,
            "flags": {flag.name: count for flag, count in self._flags.items() if count},
            "wire_to_receipt": self._from_wire.figures(),
            "sent_to_receipt": self._from_daemon.figures(),
            "prediction_hash": self._hash.hexdigest(),
        }


def received_text(found: dict[str, Any]) -> str:
    """Return *found*, of Received.figures(), as a person reads it."""
    rate = f", {found['predictions_per_s']:,.0f}/s" if found["predictions_per_s"] else ""
    lines = [
        ("received", f"{found['predictions']:,} predictions in {found['batches']:,} messages{rate}"),
        ("feed", f"{found['feed']}, {found['instruments']:,} instruments, model {found['model']}"),
    ]
    for label, name in (("from wire", "wire_to_receipt"), ("from daemon", "sent_to_receipt")):
        ages = found[name]
        if ages is not None:
            shown = [f"{one} {microseconds_text(ages[f'{one}_us'])}" for one in ("p50", "p99", "max")]
            below = f", {ages['negative']:,} below 0: the clocks disagree" if ages["negative"] else ""
            lines.append((label, ", ".join(shown) + below))
    if found["gaps"]:
        missing = f", {found['missing']:,} predictions missing" if found["missing"] is not None else ""
        lines.append(("gaps", f"{found['gaps']:,} times the connection was lost{missing}"))
    elif found["missing"]:
        lines.append(("missing", f"{found['missing']:,} predictions"))
    if found["flags"]:
        lines.append(("flags", ", ".join(f"{name} {count:,}" for name, count in found["flags"].items())))
    lines.append(("hash", found["prediction_hash"]))
    return "\n".join(f"{label:<13}{text}" for label, text in lines)
