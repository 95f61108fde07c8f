"""The kernel's command line: what it is now, where it comes from, and the exact line that would change it.

Nothing here writes: a boot parameter is printed, with the file it belongs to.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Final

from penstock_host.checklist.items import Setting, Status

if TYPE_CHECKING:
    from penstock_host.host import Host

GRUB: Final = "/etc/default/grub"
PLAIN: Final = ("/etc/kernel/cmdline", "/boot/firmware/cmdline.txt")
ENTRIES: Final = "/boot/loader/entries"
_GRUB_LINE: Final = re.compile(r"^(GRUB_CMDLINE_LINUX(?:_DEFAULT)?)=(.*)$", re.MULTILINE)


def parameters(text: str) -> dict[str, str]:
    """Return the parameters of a command line; one without a value has an empty one."""
    try:
        words = shlex.split(text)
    except ValueError:
        words = text.split()
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def booted(host: Host) -> dict[str, str]:
    """Return the parameters that this kernel was booted with."""
    return parameters(host.read_or("/proc/cmdline"))


def boot_setting(
    host: Host, target: str, good: bool, wanted: str, found: str, parameter: str, *, drop: bool = False
) -> Setting:
    """Return the setting of something that *parameter* (``name=value``) sets at boot.

    It NEEDS_REBOOT where the boot file has the parameter already (or, for *drop*, has it no more).
    """
    if good:
        return Setting(target, Status.OK, wanted, found)
    name, _, value = parameter.partition("=")
    configured = _configured(host)
    entries = [line for line in configured if line[0].startswith(ENTRIES)]
    ready = any(
        (name not in there) if drop else there.get(name) == value
        for there in (parameters(line) for _, line in entries or configured)
    )
    if ready:
        return Setting(target, Status.NEEDS_REBOOT, wanted, found, "the boot file has it: reboot")
    mend = boot_mend(host, parameter, drop=drop)
    return Setting(target, Status.DRIFT, wanted, found, mend, boot=f"-{name}" if drop else parameter)


def boot_mend(host: Host, parameter: str, *, drop: bool = False) -> str:
    """Return what to do, with the exact file and line."""
    verb = "remove" if drop else "add"
    preposition = "from" if drop else "to"
    sentence = f"{verb} {parameter} {preposition} the kernel command line"
    where = boot_line(host, [f"-{parameter.partition('=')[0]}" if drop else parameter])
    return f"{sentence}: {where}" if where else f"{sentence}, in the file of this host's boot loader, and reboot"


def boot_line(host: Host, changes: list[str]) -> str:
    """Return the file and the line that make all *changes* (``name=value``, ``-name``), or nothing if it is unknown."""
    lines = _configured(host)
    if not lines:
        return ""
    name, old = lines[0]
    keys = {change.lstrip("-").partition("=")[0] for change in changes}
    kept = [word for word in old.split() if word.partition("=")[0] not in keys]
    new = " ".join([*kept, *(change for change in changes if not change.startswith("-"))])
    if name == GRUB and _has_entries(host):
        # There grub2-mkconfig leaves the entries of kernels that are installed as they are.
        adding = " ".join(change for change in changes if not change.startswith("-"))
        dropping = " ".join(change[1:] for change in changes if change.startswith("-"))
        flags = [f'--args="{adding}"'] * bool(adding) + [f'--remove-args="{dropping}"'] * bool(dropping)
        return f"run grubby --update-kernel=ALL {' '.join(flags)} (it writes {ENTRIES}), and reboot"
    if name == GRUB:
        command = "update-grub" if host.exists("/etc/debian_version") else "grub2-mkconfig -o /boot/grub2/grub.cfg"
        return f'in {name} write {_grub_variable(host)}="{new}", run {command}, and reboot'
    after = "run kernel-install add-all, and reboot" if name == PLAIN[0] else "and reboot"
    return f"in {name} write {new}, {after}"


def _configured(host: Host) -> list[tuple[str, str]]:
    """Return each boot file with the command line that it configures."""
    lines = []
    grub = host.read_or(GRUB)
    found = _GRUB_LINE.search(grub)
    if found:
        try:
            lines.append((GRUB, " ".join(shlex.split(found[2]))))
        except ValueError:
            lines.append((GRUB, found[2].strip("\"'")))
    lines += [(name, host.read_or(name)) for name in PLAIN if host.exists(name)]
    for name in host.names(f"{ENTRIES}/*.conf") if _has_entries(host) else []:
        lines += [(name, options) for options in re.findall(r"^options\s+(.*)$", host.read_or(name), re.MULTILINE)]
    return lines


def _has_entries(host: Host) -> bool:
    """Whether GRUB boots from an entry per kernel, as Red Hat's and Fedora's do, and no longer from one file."""
    return re.search(r"^GRUB_ENABLE_BLSCFG=[\"']?true", host.read_or(GRUB), re.MULTILINE) is not None


def _grub_variable(host: Host) -> str:
    found = _GRUB_LINE.search(host.read_or(GRUB))
    return found[1] if found else "GRUB_CMDLINE_LINUX"
