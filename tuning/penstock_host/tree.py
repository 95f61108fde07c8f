"""What a kernel would do with a write, for a tree of plain files that stands for a host (``--root DIR``).

Most files simply hold what was written. The others are told here: choices in brackets, a control group's folder, the
effective affinity of an interrupt. The tree may also refuse: ``.refusals.json`` in its root holds, by file pattern,

    {"read": {"/dev/*": "EACCES"}, "write": {"/proc/irq/9/*": "EIO"}, "pending": ["/proc/irq/12/*"]}

A plain file changes as a whole or not at all, so a process killed in between leaves no half of one.
"""

from __future__ import annotations

import errno
import fnmatch
import json
import os
import re
from pathlib import Path
from typing import Any, Final

REFUSALS: Final = ".refusals.json"
_GROUP_FILES: Final = ("cgroup.procs", "cpuset.cpus", "cpuset.cpus.partition")
_CHOICE: Final = re.compile(r"\[([^][]+)\]")


class TreeKernel:
    """The kernel's part in a tree of plain files."""

    def __init__(self, root: Path) -> None:
        self._inside = os.path.realpath(root)
        self._folders: set[Path] = set()  # Known to be inside.
        try:
            rules = json.loads((root / REFUSALS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            rules = {}
        self._rules: dict[str, Any] = rules if isinstance(rules, dict) else {}

    def may(self, action: str, name: str) -> None:
        """Raise the OSError that the tree has for *action* ("read" or "write") on the file *name*."""
        for pattern, code in self._rules.get(action, {}).items():
            if fnmatch.fnmatchcase(name, pattern):
                number = getattr(errno, code)
                raise OSError(number, os.strerror(number), name)

    def keep_inside(self, path: Path, name: str) -> None:
        """Raise the OSError of a file that is not there, if a link on the way to *path* leads out of the tree."""
        if path.parent in self._folders and not path.is_symlink():
            return
        self._inside_or_raise(path.parent, name)
        self._folders.add(path.parent)
        self._inside_or_raise(path, name)

    def _inside_or_raise(self, path: Path, name: str) -> None:
        real = os.path.realpath(path)
        if real != self._inside and not real.startswith(f"{self._inside}/"):
            raise FileNotFoundError(errno.ENOENT, "a link leads out of the tree", name)

    def write(self, path: Path, name: str, data: bytes, spare: Path) -> None:
        """Write *data* to *path* as the kernel would; *spare* is a file of ours beside the journal.

        Raises:
            OSError: the file is absent, refuses, or lies outside the tree.
        """
        self.may("write", name)
        self.keep_inside(path, name)
        old = path.read_bytes()
        new = self._meaning(name, old, data)
        if new != old:
            replace_file(path, new, spare)
        if name.startswith("/proc/irq/") and path.name == "smp_affinity_list":
            self._interrupt(path.with_name("effective_affinity_list"), name, new, spare)

    def make_folder(self, path: Path, name: str) -> None:
        """Make a control group's folder, with the files that the kernel puts there."""
        self.may("write", name)
        self.keep_inside(path, name)
        path.mkdir(exist_ok=True)
        for file in _GROUP_FILES:
            if not (path / file).exists():
                (path / file).write_text("member\n" if file.endswith("partition") else "\n", encoding="ascii")

    def remove_folder(self, path: Path, name: str) -> None:
        """Remove a control group's folder; its files are the kernel's."""
        self.may("write", name)
        self.keep_inside(path, name)
        for file in _GROUP_FILES:
            (path / file).unlink(missing_ok=True)
        path.rmdir()

    def _meaning(self, name: str, old: bytes, data: bytes) -> bytes:
        text = old.decode("utf-8", "surrogateescape")
        word = data.decode("utf-8", "surrogateescape").strip()
        if name.endswith("cgroup.subtree_control"):
            controllers = [one for one in text.split() if one != word[1:]]
            # The kernel lists them in an order of its own; one that was there stays where it was.
            kept = text.split() if word[1:] in text.split() and word[0] == "+" else controllers
            added = [word[1:]] if word[0] == "+" and word[1:] not in kept else []
            return (" ".join([*kept, *added]) + "\n").encode()
        if name.startswith(("/sys/kernel/mm/transparent_hugepage/", "/sys/module/")) and _CHOICE.search(text):
            choices = text.replace("[", "").replace("]", "").split()
            if word not in choices:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), name)
            bare = _CHOICE.sub(r"\1", text)
            return re.sub(rf"(?<!\S){re.escape(word)}(?!\S)", f"[{word}]", bare, count=1).encode(
                "utf-8", "surrogateescape"
            )
        return data

    def _interrupt(self, effective: Path, name: str, data: bytes, spare: Path) -> None:
        pending = any(fnmatch.fnmatchcase(name, pattern) for pattern in self._rules.get("pending", []))
        if effective.exists() and not pending:
            replace_file(effective, data, spare)


def replace_file(path: Path, data: bytes, spare: Path) -> None:
    """Give *path* the content *data* in one step, with the mode it had; *spare* is on the same file system."""
    spare.parent.mkdir(parents=True, exist_ok=True)
    spare.write_bytes(data)
    spare.chmod(path.stat().st_mode & 0o7777)
    spare.replace(path)
