"""When a packet came, out of its control data: the NIC's stamp where its clock is known, else the kernel's, or none.

    SCM_TIMESTAMPING    three timespecs: [0] the kernel's, Unix; [2] the NIC's, in the NIC's own time base
    SO_RXQ_OVFL         how many packets this socket dropped since it was made, u32

A NIC's stamp is in its own time base, which may be Unix time, TAI or its own. So it is used where that clock is compared
with CLOCK_MONOTONIC (CARD_OFFSET_NS, CARD_ERROR_NS), and where it is, mapped, at most HARDWARE_LEAD_NS before the kernel's.
Any other is counted as doubted, and the kernel's stamp is used. Within the error of the comparison it may come out later
than the kernel's; then it is as early as the kernel's.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from penstock.v1.records import Clock
from penstock_daemon.feed import memory as feed
from penstock_daemon.feed.packets import part
from penstock_daemon.feed.window import Stamps
from penstock_daemon.native import load_acquire

SOL_SOCKET: Final = 1
SO_TIMESTAMPING: Final = 37
SO_RXQ_OVFL: Final = 40
HARDWARE_LEAD_NS: Final = 1_000_000  # A driver hands a packet over within microseconds; a moderated one within tens.
HEADER_CONTROL_LENGTH: Final = 5  # Words of struct mmsghdr.
HEADER_FLAGS: Final = 6
HEADER_RECEIVED: Final = 7
_STAMP_TYPE: Final = SOL_SOCKET | SO_TIMESTAMPING << 32
_DROPS_TYPE: Final = SOL_SOCKET | SO_RXQ_OVFL << 32
_SECOND_NS: Final = 1_000_000_000
_CMSG_WORDS: Final = 2  # struct cmsghdr: length, then level and type.
_U32: Final = 0xFFFFFFFF
_USER, _KERNEL, _NIC = int(Clock.USER), int(Clock.KERNEL), int(Clock.NIC_HARDWARE)


@part
def stamps_of(f: Any, index: int, line: int, received_ns: int, unix_offset_ns: int) -> Any:
    """Return the Stamps of the packet *index* of the batch, and count what they tell.

    Args:
        f: FeedMemory; counts are overwritten.
        index: of the batch.
        line: which it came by; the drops of its socket are noted.
        received_ns: when the batch was received, monotonic.
        unix_offset_ns: CLOCK_REALTIME minus CLOCK_MONOTONIC then.
    """
    words = f.words
    kernel_ns = np.int64(0)
    nic_ns = np.int64(0)
    size = min(f.headers[index, HEADER_CONTROL_LENGTH] >> 3, feed.CONTROL_WORDS)
    at = 0
    while at + _CMSG_WORDS < size:
        length = f.controls[index, at]
        kind = f.controls[index, at + 1]
        step = (length + 7) >> 3
        if step <= _CMSG_WORDS or at + step > size:
            break
        first = at + _CMSG_WORDS
        if kind == _STAMP_TYPE and step >= _CMSG_WORDS + 6:
            kernel_ns = f.controls[index, first] * _SECOND_NS + f.controls[index, first + 1]
            nic_ns = f.controls[index, first + 4] * _SECOND_NS + f.controls[index, first + 5]
        elif kind == _DROPS_TYPE:
            told = f.controls[index, first] & _U32  # It begins again at 2^32: the sum does not.
            words[feed.SOCKET_DROPS + line] += (told - words[feed.SOCKET_DROPS + line]) & _U32
        at += step
    return judged(words, line, kernel_ns, nic_ns, received_ns, unix_offset_ns)


@part
def judged(words: Any, line: int, kernel_ns: int, nic_ns: int, received_ns: int, unix_offset_ns: int) -> Any:
    """Return the Stamps that a packet gets.

    Args:
        words: counts are overwritten.
        line: which it came by.
        kernel_ns: Unix, 0 for none.
        nic_ns: on the clock of the line's card, 0 for none.
        received_ns: monotonic.
        unix_offset_ns: CLOCK_REALTIME minus CLOCK_MONOTONIC.
    """
    if kernel_ns == 0:
        words[feed.NO_STAMP] += 1
        return Stamps(np.int64(0), np.int64(_USER), np.int64(received_ns), np.int64(received_ns))
    first_ns, clock = kernel_ns - unix_offset_ns, _KERNEL
    if nic_ns != 0:
        error_ns = load_acquire(words, feed.CARD_ERROR_NS + line)
        mapped_ns = nic_ns - load_acquire(words, feed.CARD_OFFSET_NS + line)
        if error_ns > 0 and -error_ns <= first_ns - mapped_ns <= HARDWARE_LEAD_NS + error_ns:
            first_ns, clock = min(mapped_ns, first_ns), _NIC
            words[feed.HARDWARE_STAMPS] += 1
        else:
            words[feed.HARDWARE_DOUBTED] += 1
    elapsed_ns = received_ns - first_ns
    words[feed.KERNEL_TO_USER_NS] += max(elapsed_ns, 0)
    words[feed.KERNEL_TO_USER_MAX_NS] = max(words[feed.KERNEL_TO_USER_MAX_NS], elapsed_ns)
    if elapsed_ns < 0:
        words[feed.NEGATIVE] += 1
    return Stamps(np.int64(first_ns + unix_offset_ns), np.int64(clock), np.int64(first_ns), np.int64(received_ns))
