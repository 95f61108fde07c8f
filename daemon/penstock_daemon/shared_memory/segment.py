"""A segment: memory of one strategy and the daemon, a memfd that can neither shrink nor grow.

    made (memfd, sealed, mapped, locked) -> handed over -> served by the engine -> let go of -> unmapped, for good

Making one takes page faults and may take milliseconds, so it is done off the event loop, and never on the engine. A
segment is one strategy's: what another one finds in its own was never anybody's before. Every page is there before it is
mapped (a mapping that found none later would be SIGBUS). Who has its descriptor may write it and punch holes into it, and
can do nothing else to it: within the sealed size a hole is filled by the touch that finds it, with zeros.

One case is left. Where vm.overcommit_memory is 2, that touch is counted anew against the host's limit, and past the limit
it is SIGBUS in the engine. F_SEAL_FUTURE_WRITE would forbid holes, but also the strategy's own mapping, which comes after
the hand-over.

Huge pages are asked for by madvise alone: in a memfd of huge pages a punched hole whose page can't be had again would be
SIGBUS in the engine.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct
from typing import Final

from penstock.v1 import shared_ring as layout
from penstock.v1.shared_ring import segment_bytes

_MFD_NOEXEC_SEAL: Final = 0x8  # Linux 6.3; unknown to older Pythons, and EINVAL on older kernels.
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_HEAD: Final = struct.Struct("<QIIQQQQQII")  # As the constants of penstock.v1.shared_ring lie, from MAGIC_AT on.
_MAP_FAILED: Final = ctypes.c_void_p(-1).value

_LIBC: Final = ctypes.CDLL(None, use_errno=True)  # Python's own mmap keeps a descriptor for each mapping.
_LIBC.mmap.restype = ctypes.c_void_p


class Segment:
    """One segment, mapped into this process.

    Args:
        slots: of each of its two rings.
        session_id: whose it will be.
        first_sequence: of its first tick.
        lock: whether to lock it in memory, where the limit allows.

    Raises:
        OSError: the host has no memory or no descriptor for it.
    """

    def __init__(self, slots: int, *, session_id: int, first_sequence: int, lock: bool) -> None:
        self.slots = slots
        self.size_bytes = segment_bytes(slots)
        self.first_sequence = first_sequence
        self.descriptor = _memfd(f"penstock-session-{session_id}")
        try:
            os.posix_fallocate(self.descriptor, 0, self.size_bytes)
            fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, _SEALS)
            self.address = _map(self.descriptor, self.size_bytes)
        except BaseException:
            os.close(self.descriptor)
            raise
        whole = ctypes.c_void_p(self.address), ctypes.c_size_t(self.size_bytes)
        _LIBC.madvise(*whole, mmap.MADV_HUGEPAGE)  # Refused where huge pages of shared memory are off: no harm.
        self.locked = lock and _LIBC.mlock(*whole) == 0
        self._write_header(session_id)

    def _write_header(self, session_id: int) -> None:
        head = _HEAD.pack(
            layout.MAGIC,
            layout.LAYOUT_VERSION,
            self.slots,
            self.size_bytes,
            layout.HEADER_BYTES,
            layout.prediction_ring_at(self.slots),
            session_id,
            self.first_sequence,
            layout.TICK_SLOT_BYTES,
            layout.PREDICTION_SLOT_BYTES,
        )
        ctypes.memmove(self.address + layout.MAGIC_AT, head, len(head))

    @property
    def ticks_published(self) -> int:
        """How many ticks the strategy says that it has published: any number, not to be relied on."""
        return ctypes.c_int64.from_address(self.address + layout.TICK_PUBLISHED_AT).value

    def close_descriptor(self) -> None:
        """Close the daemon's descriptor of it, which nobody needs once the strategy has its own."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def free(self) -> None:
        """Unmap it, once the engine has let go of it."""
        self.close_descriptor()
        _LIBC.munmap(ctypes.c_void_p(self.address), ctypes.c_size_t(self.size_bytes))


def _map(descriptor: int, size_bytes: int) -> int:
    """Map all of *descriptor* and return where, every page in place."""
    rights, flags = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED | mmap.MAP_POPULATE
    address = _LIBC.mmap(None, ctypes.c_size_t(size_bytes), rights, flags, descriptor, ctypes.c_long(0))
    if address is None or address == _MAP_FAILED:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return int(address)


def _memfd(name: str) -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create(name, flags | _MFD_NOEXEC_SEAL)
    except OSError:
        return os.memfd_create(name, flags)
