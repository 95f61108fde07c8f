"""The verbs: from a host to what is printed and the exit status.

0 all as wanted, 1 not, 2 an error, 3 refused as unsafe        errors and refusals are raised
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock_host import output
from penstock_host.check import all_as_wanted, check
from penstock_host.explain import explain
from penstock_host.journal import read_journal

if TYPE_CHECKING:
    from penstock_host.host import Host


def check_verb(host: Host, *, as_json: bool) -> int:
    """Say how the host stands."""
    findings = check(host, read_journal(host))
    status = 0 if all_as_wanted(findings) else 1
    if as_json:
        output.say_json(
            {
                "verb": "check",
                "host": output.host_facts(host),
                "items": [output.finding_json(finding) for finding in findings],
                "exit_status": status,
            }
        )
    else:
        output.say_findings(host, findings)
    return status


def explain_verb(host: Host, item_id: str, *, as_json: bool) -> int:
    """Say what an item is."""
    told = explain(host, item_id)
    if as_json:
        output.say_json(told)
    else:
        output.say("\n".join(f"{key + ':':<12} {value}" for key, value in told.items()))
    return 0
