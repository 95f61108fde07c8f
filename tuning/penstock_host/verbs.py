"""The verbs: from a host to what is printed and the exit status.

0 all as wanted, 1 not, 2 an error, 3 refused as unsafe        errors and refusals are raised
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock_host import output
from penstock_host.change.apply import apply
from penstock_host.change.journal import Lock, open_journal, read_journal
from penstock_host.change.plan import plan, script
from penstock_host.change.revert import revert
from penstock_host.check import all_as_wanted, check
from penstock_host.checklist.items import AS_WANTED
from penstock_host.explain import explain
from penstock_host.faults import HostError
from penstock_host.topology import picture

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


def plan_verb(host: Host, *, as_json: bool, force: bool) -> int:
    """Print what apply would do."""
    journal = read_journal(host)
    lines = plan(host, journal, force=force)
    status = 1 if lines else 0
    if as_json:
        output.say_json(
            {
                "verb": "plan",
                "host": output.host_facts(host),
                "items": [output.finding_json(finding) for finding in check(host, journal)],
                "lines": [
                    {
                        "id": line.item_id,
                        **output.setting_json(line.setting),
                        "shell": line.shell,
                        "refused": line.reason,
                    }
                    for line in lines
                ],
                "exit_status": status,
            }
        )
    else:
        output.say(script(lines))
    return status


def apply_verb(host: Host, *, as_json: bool, force: bool) -> int:
    """Make it so."""
    host.topology  # noqa: B018 (refuses hot cores that can't be set aside, before anything is touched)
    with Lock(host), open_journal(host) as journal:
        if journal.damaged and not force:
            raise HostError(f"{journal.fault}, or --force goes on without them")
        applied = apply(host, journal, force=force)
    if as_json:
        output.say_json(
            {
                "verb": "apply",
                "host": output.host_facts(host),
                "deeds": [output.deed_json(deed) for deed in applied.deeds],
                "items": [output.finding_json(finding) for finding in applied.findings],
                "journal": journal.name,
                "exit_status": applied.exit_status,
            }
        )
    else:
        output.say(picture(host.topology))
        output.say("")
        output.say_deeds(applied.deeds)
        output.say("")
        for finding in applied.findings:
            if finding.status not in AS_WANTED:
                output.say("\n".join(output.finding_lines(finding)))
        output.say(f"now: {output.sum_line(applied.findings)}")
        output.say(f"journal: {journal.name}; penstock-tune revert puts all of it back; measure before and after")
    return applied.exit_status


def revert_verb(host: Host, *, as_json: bool, force: bool) -> int:
    """Put it back."""
    with Lock(host), open_journal(host) as journal:
        reverted = revert(host, journal, force=force)
        left = len(journal.entries)
    status = 2 if journal.damaged and reverted.exit_status < 2 else reverted.exit_status
    if as_json:
        output.say_json(
            {
                "verb": "revert",
                "deeds": [output.deed_json(deed) for deed in reverted.deeds],
                "outstanding": left,
                "journal": journal.name,
                "fault": journal.fault,
                "exit_status": status,
            }
        )
    else:
        output.say_deeds(reverted.deeds)
        done = "the rest is" if journal.damaged else "all is"
        output.say(f"{left} left to put back" if left else f"{done} as it was before penstock-tune")
        if journal.damaged:
            output.complain(f"penstock-tune: {journal.fault}")
    return status


def explain_verb(host: Host, item_id: str, *, as_json: bool) -> int:
    """Say what an item is."""
    told = explain(host, item_id)
    if as_json:
        output.say_json({"verb": "explain"} | told | {"exit_status": 0})
    else:
        output.say("\n".join(f"{key + ':':<12} {value}" for key, value in told.items()))
    return 0
