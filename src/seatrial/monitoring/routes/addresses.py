"""Addresses: may a message go there, and to which address exactly?

A name is looked up once. Every address that it has is judged, and the connection is made to one that was judged: a
name server that answers otherwise the second time changes nothing. What is not a public address is refused unless it
is allowed by name or network, in whatever clothes it comes: as a number, mapped or embedded into IPv6, or by a name.
"""

from __future__ import annotations

import socket
import ssl
import threading
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import SplitResult, unquote, urlsplit

from seatrial.core.clock import monotonic

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

NAT64 = ip_network("64:ff9b::/96")
INTERNAL = "it is an internal address, which [alerts] internal in seatrial.toml does not allow"
SAMPLE = 2048
"""Bytes of an answer that are looked at."""


class InternalAddress(OSError):
    """The destination lies in this machine's or this house's own network, and nobody allowed it."""


@dataclass(frozen=True)
class Allowed:
    """Which internal destinations are meant.

    networks: addresses in them are let through. names: what such a name resolves to is let through, but not what is
    link-local: the metadata service of a cloud has to be allowed by its address.
    """

    networks: tuple[Network, ...] = ()
    names: frozenset[str] = field(default_factory=frozenset)

    @classmethod
    def parse(cls, entries: Sequence[str]) -> Allowed:
        """Each entry is a network ("10.0.0.0/8"), an address or a host's name."""
        networks, names = [], set()
        for entry in entries:
            try:
                networks.append(ip_network(entry.strip(), strict=False))
            except ValueError:
                names.add(entry.strip().rstrip(".").casefold())
        return cls(tuple(networks), frozenset(names))

    def refuses(self, host: str, address: str) -> bool:
        """Whether nothing may be sent to `address`, which `host` was found to have."""
        found = plain(ip_address(address.partition("%")[0]))
        if any(found in network for network in self.networks if network.version == found.version):
            return False
        if found.is_global and not (found.is_multicast or found.is_reserved or _is_site_local(found)):
            return False
        named = host.rstrip(".").casefold() in self.names
        return not named or found.is_link_local or found.is_multicast or found.is_unspecified


def _is_site_local(address: Address) -> bool:
    return isinstance(address, IPv6Address) and address.is_site_local


def plain(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for (mapped, compatible, 6to4, Teredo, NAT64), else itself."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    number = int(address)
    if address in NAT64 or 1 < number < 2**32:
        return IPv4Address(number & 0xFFFFFFFF)
    return address


def connected(host: str, port: int, allowed: Allowed, seconds: float) -> socket.socket:
    """A connection to `host`, to an address that was looked up here and judged.

    Raises InternalAddress when any of its addresses is refused, OSError when none answers.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    if any(allowed.refuses(host, str(one[4][0])) for one in found):
        raise InternalAddress("internal")
    deadline = monotonic() + seconds
    problem: OSError = OSError("no address")
    for family, kind, protocol, _, address in found:
        made = socket.socket(family, kind, protocol)
        try:
            made.settimeout(max(deadline - monotonic(), 0.01))
            made.connect(address)
        except OSError as error:
            made.close()
            problem = error
        else:
            return made
    raise problem


def refused(host: str, allowed: Allowed, seconds: float) -> str:
    """Why nothing may be sent to a host, before anything is; empty: it may, or its name is not known just now."""
    said: list[bool] = []

    def work(_: list[Callable[[], None]]) -> str:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        said.append(any(allowed.refuses(host, str(one[4][0])) for one in found))
        return ""

    within(seconds, work)
    return INTERNAL if any(said) else ""


def within(seconds: float, work: Callable[[list[Callable[[], None]]], str]) -> str:
    """Why `work` failed, or an empty text; "no answer in time" when it takes longer than `seconds`, and it is left.

    work: is given a list; what it appends there is called when it is given up, to end what it waits for.
    """
    if seconds <= 0:
        return "its time was used up by the messages before"
    ends: list[Callable[[], None]] = []
    said: list[str] = []
    # a thread of its own: neither a name look-up that hangs nor an answer that trickles in ends by a socket's timeout
    worker = threading.Thread(target=lambda: said.append(_failure(work, ends)), name="route", daemon=True)
    worker.start()
    worker.join(seconds)
    if worker.is_alive():
        for end in list(ends):
            with suppress(OSError):
                end()
        return "no answer in time"
    return said[0] if said else "no answer"


def _failure(work: Callable[[list[Callable[[], None]]], str], ends: list[Callable[[], None]]) -> str:
    try:
        return work(ends)
    except InternalAddress:
        return INTERNAL
    except ssl.SSLCertVerificationError:
        return "its certificate is not trusted"
    except (OSError, HTTPException, ValueError) as error:
        # the kind only: words of the driver may repeat the address
        return f"it could not be reached ({type(error).__name__})"


def parse(address: str) -> SplitResult | None:
    """The parts of an http or https address, or None."""
    try:
        parts = urlsplit(address)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    return parts if good else None


def post(
    address: str,
    body: bytes,
    allowed: Allowed,
    seconds: float,
    *,
    headers: Mapping[str, str] | None = None,
    says: Callable[[bytes], str] | None = None,
) -> str:
    """Post once, as JSON; why it failed, or an empty text. Redirects are not followed.

    The address, which may hold a secret, is never part of the reason; neither is what was answered, except what `says`
    makes of the first bytes of an answer other than 2xx.
    """
    parts = parse(address)
    if parts is None:
        return "its address is no http or https address"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    sent = {"Content-Type": "application/json", "User-Agent": "seatrial", **(headers or {})}
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        sent["Authorization"] = f"Basic {b64encode(login.encode()).decode()}"
    kind = _CheckedTls if parts.scheme == "https" else _Checked

    def work(ends: list[Callable[[], None]]) -> str:
        connection = kind(parts.hostname or "", parts.port, timeout=seconds)
        connection.allowed = allowed
        ends.append(lambda: connection.sock.shutdown(socket.SHUT_RDWR) if connection.sock else None)
        try:
            connection.request("POST", path, body, sent)
            answer = connection.getresponse()
            if 200 <= answer.status < 300:
                return ""
            redirected = ", and redirects are not followed" if 300 <= answer.status < 400 else ""
            more = says(answer.read(SAMPLE)) if says else ""
            return f"it answered {answer.status}{redirected}{more}"
        finally:
            connection.close()

    return within(seconds, work)


class _Checked(HTTPConnection):
    allowed = Allowed()

    def connect(self) -> None:
        self.sock = connected(self.host, self.port, self.allowed, float(self.timeout or 5))


class _CheckedTls(HTTPSConnection):
    allowed = Allowed()

    def connect(self) -> None:
        made = connected(self.host, self.port, self.allowed, float(self.timeout or 5))
        tls = ssl.create_default_context()
        self.sock = tls.wrap_socket(made, server_hostname=self.host, do_handshake_on_connect=False)
        self.sock.do_handshake()
