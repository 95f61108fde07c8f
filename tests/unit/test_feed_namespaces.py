"""A feed that comes over a cable from another host, as far as the kernel knows."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator

import numpy as np
import pytest

from penstock.v1.records import Clock
from penstock_daemon.engine_memory import CURSOR_WORDS, TICK_PUBLISHED, TICK_SLOT_DTYPE
from penstock_daemon.feed import memory
from penstock_daemon.feed.memory import Payload
from penstock_daemon.feed.publish import Ring
from penstock_daemon.feed.sockets import SocketWishes, open_line, open_recovery
from penstock_daemon.feed.thread import FeedShape, Receiver
from support.engines import running_engine
from support.feed_rig import packet
from support.namespaces import Host, NoNamespacesError, cut_cable, lay_cable, two_hosts

GROUP, PORT, SERVER_PORT = "239.255.44.1", 26_400, 26_410  # Free for certain: the namespaces are new.
WISHES = SocketWishes(receive_buffer_kb=256, busy_poll_us=0, stamps="auto")
PATIENCE_S = 60.0


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    try:
        with two_hosts() as made:
            yield made
    except NoNamespacesError as reason:
        pytest.skip(str(reason))


def make_sender() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    cable = struct.pack("=4s4si", bytes(4), bytes(4), socket.if_nametoindex("cable"))
    made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, cable)
    made.connect((GROUP, PORT))
    return made


def make_server(host: Host) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((host.address, SERVER_PORT))
    made.settimeout(PATIENCE_S)
    return made


def test_a_feed_and_its_recovery_come_over_a_cable(hosts: tuple[Host, Host]) -> None:
    here, there = hosts
    line = here.call(lambda: open_line("feed.group", f"{GROUP}:{PORT}", "feed.interface", "cable", WISHES))
    asking = here.call(lambda: open_recovery(f"{there.address}:{SERVER_PORT}", WISHES))
    sender, server = there.call(make_sender), there.call(lambda: make_server(there))
    receiver = Receiver(FeedShape(Payload.DBN, ["ONE"], [1], [0], 1024, 1, 1), source=0)
    settings = receiver.memory.settings
    settings[memory.IDLE_BLOCK] = 1
    settings[memory.RECOVERY_TIMEOUT_NS], settings[memory.RECOVERY_ATTEMPTS] = 2_000_000_000, 3
    ticks = np.zeros((1, 64), TICK_SLOT_DTYPE)
    ring = Ring(np.zeros(CURSOR_WORDS, np.int64), ticks, ticks.view(np.int64).reshape(1, 64, -1))
    receiver.listen_to([line.socket, None, asking.socket])
    with running_engine() as engine:
        receiver.start(engine, ring=ring)
        try:
            for first in (1, 2, 5):
                sender.send(packet(first))
            _, place = server.recvfrom(100)
            server.sendto(packet(3, 2), place)
            deadline_s = time.monotonic() + PATIENCE_S
            while receiver.word(memory.APPLIED) < 5:
                assert time.monotonic() < deadline_s
                time.sleep(0.001)
        finally:
            receiver.stop()
    receiver.close()
    for one in (line.socket, asking.socket, sender, server):
        one.close()
    ticks = ring.tick_slots[0, : ring.cursors[TICK_PUBLISHED]]
    assert ticks["bid_px"].tolist() == [1, 2, 3, 4, 5]
    assert set(ticks["clock"].tolist()) == {Clock.KERNEL}
    assert receiver.word(memory.GAPS_RECOVERED) == 1


def test_a_line_whose_interface_was_made_anew_is_joined_again(hosts: tuple[Host, Host]) -> None:
    here, there = hosts
    line = here.call(lambda: open_line("feed.group", f"{GROUP}:{PORT}", "feed.interface", "cable", WISHES))
    assert line.membership is not None
    assert not line.membership.renew(line.socket), "nothing has changed"
    cut_cable(here)
    assert not line.membership.renew(line.socket), "there is none now"
    for _ in range(2):  # Whichever index the first one gets, the second one's is another.
        lay_cable(here, there)
        if line.membership.renew(line.socket):
            break
        cut_cable(here)
    sender = there.call(make_sender)
    line.socket.settimeout(PATIENCE_S)
    for _ in range(2):
        sender.send(packet(1))
    assert line.socket.recv(2048) == packet(1)
    for one in (line.socket, sender):
        one.close()
