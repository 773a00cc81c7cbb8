"""Addresses: nothing goes to an internal address that nobody allowed, in whatever clothes it comes."""

from __future__ import annotations

import socket
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.monitoring.routes.addresses import Allowed, InternalAddress, connected, plain, post
from tests.monitoring.alerted import Hook

NONE = Allowed()
INTERNAL = [
    "127.0.0.1",
    "127.8.9.10",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:10.1.2.3",
    "::ffff:169.254.169.254",
    "::10.1.2.3",
    "64:ff9b::10.1.2.3",
    "64:ff9b::169.254.169.254",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
]
PUBLIC = ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"]


@pytest.mark.parametrize("address", INTERNAL)
def test_an_internal_address_is_refused(address):
    assert NONE.refuses("host", address)


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_not(address):
    assert not NONE.refuses("host", address)


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_judged_alike_in_every_form(address):
    number = int(address)
    forms = [f"::ffff:{address}", f"64:ff9b::{address}", f"2002:{number >> 16:x}:{number & 0xFFFF:x}::"]
    assert {NONE.refuses("host", form) for form in forms} == {NONE.refuses("host", str(address))}


def test_what_an_ipv6_address_stands_for_is_found():
    assert str(plain(ip_address("2001:0:4136:e378:8000:63bf:3fff:fdd2"))) == "192.0.2.45"


@pytest.mark.parametrize(
    ("allowed", "host", "address", "refused"),
    [
        (["10.0.0.0/8"], "h", "10.1.2.3", False),
        (["10.0.0.0/8"], "h", "::ffff:10.1.2.3", False),
        (["10.0.0.0/8"], "h", "192.168.0.1", True),
        (["127.0.0.1"], "h", "127.0.0.2", True),
        (["169.254.169.254"], "h", "169.254.169.254", False),
        (["alertmanager.monitoring.svc"], "Alertmanager.monitoring.svc.", "10.1.2.3", False),
        (["alertmanager"], "alertmanager", "127.0.0.1", False),
        (["alertmanager"], "alertmanager", "169.254.169.254", True),
        (["alertmanager"], "other", "10.1.2.3", True),
        (["fd00::/8"], "h", "fd12::1", False),
    ],
)
def test_what_is_meant_is_allowed_by_network_address_or_name(allowed, host, address, refused):
    assert Allowed.parse(allowed).refuses(host, address) is refused


@pytest.mark.parametrize("host", ["localhost", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "::1", "[::1]"])
def test_however_loopback_is_written_nothing_is_sent_there(host):
    hook = Hook()
    port = hook.server.server_port
    written = f"[{host}]" if host == "::1" else host
    why = post(f"http://{written}:{port}/secret", b"{}", NONE, 2)
    hook.close()
    assert "internal address" in why
    assert hook.got == []


def test_the_address_that_was_judged_is_the_one_that_is_called(monkeypatch):
    """A name server that answers with a public address first and a loopback one after: it is asked once."""
    asked = []

    def twofaced(host, port, **_):
        asked.append(host)
        address = "8.8.8.8" if len(asked) > 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", twofaced)
    with pytest.raises(InternalAddress):
        connected("rebinding.example", 80, NONE, 1)
    assert asked == ["rebinding.example"]


def test_one_internal_address_among_several_refuses_the_name(monkeypatch):
    both = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in ("8.8.8.8", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
    with pytest.raises(InternalAddress):
        connected("both.example", 80, NONE, 1)


def test_a_redirect_to_an_internal_address_is_not_followed():
    inner, outer = Hook(), None
    outer = Hook(302, Location=inner.url)
    why = post(outer.url, b"{}", Allowed.parse(["127.0.0.1"]), 2)
    outer.close()
    inner.close()
    assert "302" in why
    assert "redirects are not followed" in why
    assert inner.got == []


def test_proxies_of_the_environment_are_not_asked(monkeypatch):
    hook = Hook()
    monkeypatch.setenv("http_proxy", hook.url)
    assert "internal" in post("http://10.255.255.1/", b"{}", NONE, 1)
    hook.close()
    assert hook.got == []
