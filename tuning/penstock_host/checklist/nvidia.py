"""What nvidia-smi says of a GPU, asked once for all fields: watching it often is itself a source of latency."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from penstock_host.faults import AbsentError, UnreadableError

if TYPE_CHECKING:
    from penstock_host.host import Host

FIELDS: Final = (
    "persistence_mode",
    "clocks.gr",
    "clocks.max.gr",
    "compute_mode",
    "pcie.link.gen.current",
    "pcie.link.gen.max",
    "pcie.link.width.current",
    "pcie.link.width.max",
    "ecc.errors.uncorrected.volatile.total",
    "mig.mode.current",
    "temperature.gpu",
    "power.draw",
    "power.limit",
)
# Fields that some drivers do not know, each asked for by itself.
REASONS: Final = "clocks_event_reasons.active"
REMAPPED: Final = ("--query-remapped-rows=remapped_rows.pending,remapped_rows.failure", "--format=csv,noheader")


def value(host: Host, gpu: str, field: str) -> str:
    """Return one of ``FIELDS``.

    Raises:
        AbsentError: no nvidia-smi, no GPU, or a GPU without this.
        UnreadableError: nvidia-smi failed.
    """
    line = query(host, gpu, ",".join(FIELDS))
    values = dict(zip(FIELDS, line, strict=False))
    found = values.get(field, "[N/A]")
    if found.strip("[]").upper() in {"N/A", "NOT SUPPORTED", "UNKNOWN ERROR", ""}:
        raise AbsentError(f"{gpu} has no {field}")
    return found


def query(host: Host, gpu: str, fields: str) -> list[str]:
    """Return what nvidia-smi says of *fields*; faults as ``value``."""
    text = host.ask("nvidia-smi", "-i", gpu, f"--query-gpu={fields}", "--format=csv,noheader,nounits")
    lines = text.strip().splitlines()
    if len(lines) != 1:
        raise UnreadableError(f"nvidia-smi said {len(lines)} lines of {gpu}, not one")
    return [one.strip() for one in lines[0].split(",")]
