"""What a play of a feed did: figures for machines, and as text for people.

late = handed to the kernel - due        the sender's own delay, to be taken off whoever is measured by this feed
"""

from __future__ import annotations

from typing import Any

import numpy as np

from penstock_client.feed_player import FeedRun
from penstock_client.replay_schedule import MAX_SPEED
from penstock_client.replay_summary import percentile_ns
from penstock_client.wording import microseconds_text


def summarise_feed(run: FeedRun) -> dict[str, Any]:
    """Return everything that ``--json`` prints; durations in microseconds and seconds, late_* None at full speed."""
    plan, file = run.plan, run.plan.file
    late_ns = np.sort(run.late_ns)
    paced = plan.speed != MAX_SPEED and run.sent > 0
    seconds = (int(run.sent_ns[run.sent - 1]) - int(run.sent_ns[0])) / 1e9 if run.sent else 0.0
    return {
        "file": str(file.path),
        "payload": file.payload,
        "session": plan.session.decode("ascii").rstrip(" "),
        "groups": [str(group) for group in plan.groups],
        "interface": plan.interface,
        "speed": "max" if plan.speed == MAX_SPEED else plan.speed,
        "messages_of_file": file.messages,
        "messages": run.sent,
        "packets": run.packets,
        "bytes": run.payload_bytes,
        "heartbeats": run.heartbeats,
        "seconds": round(seconds, 6),
        "messages_per_s": round(run.sent / seconds, 1) if seconds else None,
        "late_p50_us": percentile_ns(late_ns, 0.5) / 1e3 if paced else None,
        "late_p99_us": percentile_ns(late_ns, 0.99) / 1e3 if paced else None,
        "late_max_us": int(late_ns[-1]) / 1e3 if paced else None,
        "faults": {
            "dropped": run.faults.dropped,
            "duplicated": run.faults.duplicated,
            "reordered": run.faults.reordered,
            "lines": plan.faults.lines,
            "seed": plan.faults.seed,
        }
        if plan.faults.any
        else None,
        "re_requests": None
        if run.recovery is None
        else {
            "requests": run.recovery.requests,
            "packets": run.recovery.answered,
            "messages": run.recovery.messages,
            "refused": run.recovery.refused,
        },
        "interrupted": run.interrupted_by is not None,
    }


def feed_text(found: dict[str, Any]) -> str:
    """Return *found*, of summarise_feed(), as a person reads it."""
    rate = f", {found['messages_per_s']:,.0f}/s" if found["messages_per_s"] else ""
    cut = "" if found["messages"] == found["messages_of_file"] else f" of {found['messages_of_file']:,}: interrupted"
    lines = [
        ("played", f"{found['messages']:,} messages{cut}, {found['packets']:,} packets, {found['bytes']:,} bytes"),
        ("", f"in {found['seconds']:,.3f} s{rate}; {found['heartbeats']:,} heartbeats"),
        ("feed", f"{found['payload']}, session {found['session']}, to {' and '.join(found['groups'])}"),
    ]
    if found["late_p50_us"] is not None:
        late = [f"{name} {microseconds_text(found[f'late_{name}_us'])}" for name in ("p50", "p99", "max")]
        lines.append(("late", f"the sender itself, after a message was due: {', '.join(late)}"))
    if found["faults"]:
        faults = found["faults"]
        where = "on line A" if faults["lines"] == "a" else "on both lines"
        made = ", ".join(f"{faults[name]:,} packets {name}" for name in ("dropped", "duplicated", "reordered"))
        lines.append(("faults", f"made on purpose {where}: {made} (seed {faults['seed']})"))
    if found["re_requests"]:
        asked = found["re_requests"]
        answers = f"{asked['packets']:,} packets with {asked['messages']:,} messages"
        lines.append(
            ("re-requests", f"{asked['requests']:,}, answered by {answers}; {asked['refused']:,} not answered")
        )
    return "\n".join(f"{label:<13}{text}" for label, text in lines)
