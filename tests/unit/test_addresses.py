"""Addresses: what is one, and what the refusal of another says."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_daemon.addresses import TcpAddress, UnixAddress, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("unix:/run/penstock.sock", UnixAddress(Path("/run/penstock.sock"))),
        ("unix:///run/penstock.sock", UnixAddress(Path("/run/penstock.sock"))),
        ("unix:penstock.sock", UnixAddress(Path("penstock.sock"))),
        ("127.0.0.1:50051", TcpAddress("127.0.0.1", 50051)),
        ("localhost:0", TcpAddress("localhost", 0)),
        ("[::1]:65535", TcpAddress("::1", 65535)),
    ],
)
def test_address_is_parsed_into_its_parts(text, address):
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("text", "clause"),
    [
        ("", "must be unix:PATH or HOST:PORT"),
        ("localhost", "must be unix:PATH or HOST:PORT"),
        (":50051", "must be unix:PATH or HOST:PORT"),
        ("unix:", "must have the path of a socket"),
        ("unix:/run/", "must have the path of a socket"),
        ("unix:a\0b", "must have the path of a socket"),
        ("unix://run/x", "must be absolute after unix://"),
        ("unix:/" + "é" * 54, "at most 107 bytes (this one has 109"),
        ("localhost:", "must end in a port of 0 to 65535"),
        ("localhost:65536", "must end in a port of 0 to 65535"),
        ("localhost:-1", "must end in a port of 0 to 65535"),
        ("localhost:٣", "must end in a port of 0 to 65535"),
        ("::1:50051", "must have brackets around an IPv6 address"),
        ("[localhost]:1", "must have an IPv6 address in its brackets"),
        ("http://localhost:1", "must have brackets"),
        ("local host:1", "must have a host name"),
    ],
)
def test_what_is_no_address_is_refused_with_what_it_must_be(text, clause):
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 - the clause is compared as it stands.
        parse_address(text)
    assert clause in str(refusal.value)


@given(st.text() | st.text().map("unix:{}".format))
def test_any_text_is_an_address_or_a_clause(text):
    try:
        address = parse_address(text)
    except ValueError as refusal:
        clause = str(refusal)
    else:
        assert parse_address(str(address)) == address
        return
    assert clause.startswith("must ")


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False)],
)
def test_loopback_is_told_from_the_rest(host, loopback):
    assert TcpAddress(host, 1).loopback is loopback


@pytest.mark.parametrize("host", ["10.0.0.1", "example.com", "localhost.example.com", "128.0.0.1"])
def test_hosts_that_others_reach_are_not_loopback(host):
    assert not TcpAddress(host, 1).loopback
