"""What can be wrong when a host is read or written, as exceptions that say whose it is.

Absent is not a fault of the host: kernels, cards and guests differ. Unreadable is: an answer exists and was not given.
"""

from __future__ import annotations


class HostError(Exception):
    """A sentence for the operator."""


class AbsentError(HostError):
    """The host does not have it: a file, a program, a field."""


class UnreadableError(HostError):
    """It is there, and may not be read, or makes no sense."""


class WriteRefusedError(HostError):
    """The kernel or a program refused a write.

    Attributes:
        errno: the kernel's, or None where a program refused.
    """

    def __init__(self, sentence: str, errno: int | None = None) -> None:
        super().__init__(sentence)
        self.errno = errno


class UnsafeError(HostError):
    """What was asked for could break the host: nothing was done."""


class TopologyError(UnsafeError):
    """The hot cores that were asked for can't be set aside."""


class ProfileError(HostError):
    """The profile or a flag is wrong; the sentences name all faults."""


class LockedError(HostError):
    """Another penstock-tune is at work."""
