"""Route files: which releases does a deployment answer with, and who gets which?

One signed file per deployment, replaced as a whole, with a generation that only rises. Deploying writes it, serving
reads it; they share nothing else. What is signed is the exact bytes of the route; how bytes are signed and whose
signature is trusted is the caller's business.
"""

from __future__ import annotations

import base64
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote

import msgspec

from seatrial.core.errors import Failed
from seatrial.core.identity import canonical_json
from seatrial.core.routing import BUCKETS
from seatrial.core.types import Dtype

FORMAT = 3
"""Of a route with fields that other releases want; 2 of one with defaults or a cache; 1 of any other: a version that
would not follow a route refuses it, and reads every other."""

SHADOW_ARM = "shadow"
"""The arm that scores what the others answer, for nobody to see; its share is 0."""

Sign = Callable[[bytes], bytes]
"""The signature of some bytes."""
Verify = Callable[[bytes, bytes], bool]
"""(bytes, signature): is it the signature of a trusted key?"""
OnStoreFailure = Literal["refuse", "missing"]
Default = float | int | str | None
MOST_CACHED = 1_000_000


class RouteDamaged(Failed):
    """A route file cannot be read, or its shares do not add up."""

    code = "route.damaged"


class RouteNotTrusted(Failed):
    """A route file is not signed by a trusted key."""

    code = "route.not_trusted"


class RouteTooNew(Failed):
    """A route file was written by a newer version."""

    code = "route.too_new"


class RouteUnwritable(Failed):
    """A route file cannot be written: the disk is full or failing, or the folder may not be written."""

    code = "route.unwritable"


class Arm(msgspec.Struct, frozen=True):
    """One release that takes part of the traffic.

    share: of 10,000. bundle: the key of the release's bundle in the object store.
    """

    name: str
    release: str
    share: int
    bundle: str


class RouteFile(msgspec.Struct, frozen=True):
    """What a deployment answers with.

    generation: rises by one with every change. salt: makes the split independent of other deployments.
    route_by: the request field whose value decides the arm; None: the request id does, so that one caller may
        meet several arms.
    on_store_failure: "refuse" answers 503 while the online store is down, "missing" answers with its features
        missing and says so in `degraded`.
    replaces: the generation that a roll-back returns to; None: nothing was live before.
    defaults: by name of a looked-up feature ("view__feature"), the value that stands for it while the online store does
        not answer; only with "missing".
    cache: how many scores are kept, by what the model was given; 0: none.
    sent: every field that callers may send, with its type: those of the arms and of the deployment's other recent
        releases, which are ignored. Empty where all of these want the same.
    """

    deployment: str
    generation: int
    model: str
    salt: str
    arms: tuple[Arm, ...]
    route_by: str | None = None
    on_store_failure: OnStoreFailure = "refuse"
    replaces: int | None = None
    defaults: dict[str, Default] = {}
    cache: int = 0
    sent: dict[str, Dtype] = {}


class _Signed(msgspec.Struct, frozen=True):
    format: int
    route: msgspec.Raw
    signature: str


class _Format(msgspec.Struct):
    format: int


class RouteStore:
    """A folder of route files, one per deployment; below it what they were, by generation.

    NAME.json                    what the deployment answers with
    history/NAME/GENERATION.json every route file of this host, as it was signed
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        """The deployments that have a route file, sorted."""
        return sorted(unquote(path.stem) for path in self.folder.glob("*.json"))

    def path(self, deployment: str) -> Path:
        return self.folder / f"{quote(deployment, safe='')}.json"

    def read(self, deployment: str, verify: Verify) -> RouteFile | None:
        """The deployment's route; None when it has none.

        Raises RouteDamaged, RouteNotTrusted or RouteTooNew.
        """
        try:
            data = self.path(deployment).read_bytes()
        except FileNotFoundError:
            return None
        return read_route(deployment, data, verify)

    def earlier(self, deployment: str, generation: int, verify: Verify) -> RouteFile | None:
        """The deployment's route of a generation, as this host had it; None when it never did. Raises like `read`."""
        try:
            data = self._kept(deployment, generation).read_bytes()
        except FileNotFoundError:
            return None
        return read_route(deployment, data, verify)

    def write(self, route: RouteFile, sign: Sign, verify: Verify) -> bool:
        """Replace the deployment's route file. False when it already has this or a later generation.

        A file that is damaged or not trusted is replaced. Raises RouteUnwritable, with the file as it was.
        """
        try:
            return self._write(route, sign, verify)
        except OSError as error:
            raise unwritable(route.deployment, error) from None

    def keep_again(self, route: RouteFile, sign: Sign, verify: Verify) -> bool:
        """Sign what this host keeps of an earlier generation again, when it is not trusted any more.

        route: what was decided for that generation. False when this host never had it, or it is good.
        """
        kept = self._kept(route.deployment, route.generation)
        with self._locked():
            try:
                if self.earlier(route.deployment, route.generation, verify) is None:
                    return False
            except (RouteDamaged, RouteNotTrusted):
                _replace(kept, write_route(route, sign))
                return True
        return False

    def _write(self, route: RouteFile, sign: Sign, verify: Verify) -> bool:
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._locked():
            try:
                old = self.read(route.deployment, verify)
            except (RouteDamaged, RouteNotTrusted):
                old = None
            if old is not None and old.generation >= route.generation:
                return False
            data = write_route(route, sign)
            kept = self._kept(route.deployment, route.generation)
            kept.parent.mkdir(parents=True, exist_ok=True)
            _replace(kept, data)  # first: a roll-back must find what it was told of
            _replace(self.path(route.deployment), data)
            return True

    def _kept(self, deployment: str, generation: int) -> Path:
        return self.folder / "history" / quote(deployment, safe="") / f"{generation}.json"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.folder / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def write_route(route: RouteFile, sign: Sign) -> bytes:
    """The bytes of a route file. Raises RouteDamaged when the route is not sound."""
    _check(route.deployment, route)
    plain = msgspec.to_builtins(route)
    for name in ("defaults", "cache", "sent"):  # a route without them is what older versions write
        if not plain[name]:
            del plain[name]
    body = canonical_json(plain)
    return write_signed(body, sign(body), _format_of(route))


def write_signed(body: bytes, signature: bytes, format: int = 1) -> bytes:
    """The bytes of a route file around a route's bytes and their signature."""
    return msgspec.json.encode(_Signed(format, msgspec.Raw(body), base64.b64encode(signature).decode())) + b"\n"


def read_route(deployment: str, data: bytes, verify: Verify) -> RouteFile:
    """The route in a route file's bytes, for the deployment that the file is named after."""
    try:
        number = msgspec.json.decode(data, type=_Format).format
        if number > FORMAT:
            raise RouteTooNew(
                f"the route file of '{deployment}' has format {number}; this version reads up to {FORMAT}.",
                state="Nothing was changed.",
                next="Update seatrial.",
            )
        signed = msgspec.json.decode(data, type=_Signed)
        signature = base64.b64decode(signed.signature, validate=True)
        if write_signed(signed.route, signature, signed.format) != data:
            raise _damaged(deployment, "is not as it was written")
        trusted = verify(bytes(signed.route), signature)
        route = msgspec.json.decode(signed.route, type=RouteFile)
    except (msgspec.MsgspecError, ValueError):
        raise _damaged(deployment, "is not a route file") from None
    if not trusted:
        raise RouteNotTrusted(
            f"the route file of '{deployment}' is not signed by a trusted key.",
            state="It was not taken; what was served before goes on being served.",
            next=f"Deploy '{deployment}' again, or add the signer's public key to the trusted keys.",
        )
    _check(deployment, route)
    if number != _format_of(route):
        raise _damaged(deployment, f"says that it has format {number}, and has not")
    return route


def _format_of(route: RouteFile) -> int:
    if route.sent:
        return 3
    return 2 if route.defaults or route.cache else 1


def _check(deployment: str, route: RouteFile) -> None:
    names = [arm.name for arm in route.arms]
    if route.deployment != deployment:
        raise _damaged(deployment, "is of another deployment")
    if sum(arm.share for arm in route.arms) != BUCKETS or any(arm.share < 0 for arm in route.arms):
        raise _damaged(deployment, f"has shares that do not add up to {BUCKETS}")
    if len(set(names)) != len(names):
        raise _damaged(deployment, "names an arm twice")
    if route.generation < 1:
        raise _damaged(deployment, "has no generation")
    if not 0 <= route.cache <= MOST_CACHED:
        raise _damaged(deployment, f"keeps {route.cache} scores")


def unwritable(deployment: str, error: OSError) -> RouteUnwritable:
    return RouteUnwritable(
        f"the route file of '{deployment}' cannot be written: {error.strerror or error}.",
        state="This host goes on serving what it did. What the metadata store has decided stands.",
        next="Make room or give the rights to write; `seatrial serve`, or deploying what `seatrial status` calls live, "
        "writes it then.",
    )


def _damaged(deployment: str, what: str) -> RouteDamaged:
    return RouteDamaged(
        f"the route file of '{deployment}' {what}.",
        state="It was not taken; what was served before goes on being served.",
        next=f"Deploy '{deployment}' again.",
    )


def _replace(path: Path, data: bytes) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise
    fd = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
