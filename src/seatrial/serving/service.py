"""A running service: which releases does it answer with, and how does it take up new ones?

`load` serves the deployments of a folder of route files, with bundles from an object store; `from_bundle` serves one
bundle file. A route or release that cannot be verified or does not replay its golden rows is not taken, and what was
served before goes on being served. A key that is revoked is trusted no longer from the next look on: nothing that it
signed is taken up, and what it signed and is live is reported, or refused, until a trusted key has signed it again. The
process needs neither the project's code nor anything that trains.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seatrial.core.clock import machine_us, monotonic, to_us
from seatrial.core.errors import Failed, SeatrialError, Unavailable, UsageError, did_you_mean, listed
from seatrial.core.routing import BUCKETS
from seatrial.releases.bundle import Bundle, open_bundle
from seatrial.releases.keyring import WatchedKeys
from seatrial.releases.signing import TrustedKeys, is_signed
from seatrial.serving.meters.metrics import Metrics
from seatrial.serving.meters.unshipped import Unshipped
from seatrial.serving.scoring.on_demand import OnDemand, Shelf, resting
from seatrial.serving.scoring.predictor import Predictor, Release, Share, StoreDown
from seatrial.serving.scoring.release import open_release
from seatrial.serving.scoring.stored import StoredPrediction
from seatrial.serving.scoring.stored import read as read_stored
from seatrial.serving.scoring.watched_store import WatchedStore
from seatrial.stores.online import OnlineStore, OnlineStoreDamaged, OnlineStoreTooNew, OnlineStoreUnavailable
from seatrial.stores.prediction_log import LogUnwritable, PredictionLog
from seatrial.stores.routes import RouteFile, RouteNotTrusted, RouteStore, Verify

if TYPE_CHECKING:
    from seatrial.serving.place import Place

WATCH_SECONDS = 0.5
DISTRUST_SECONDS = 5.0
"""Between two looks at whether what is not trusted any more was signed again."""
ReadBundle = Callable[[str], bytes]
"""The bytes of the bundle with this key."""
OpenRelease = Callable[[bytes, TrustedKeys], Release]
"""The release in a bundle's bytes, verified by these keys, its golden rows replayed; else it raises a SeatrialError."""
Vouch = Callable[[bytes], Bundle]
"""A bundle that a trusted key signed; raises a SeatrialError otherwise."""

_LOGGER = logging.getLogger("seatrial.serving")


class NotFound(UsageError):
    """Nothing is served at this path, or no deployment has this name."""

    code = "http.not_found"
    http_status = 404


class NotReady(Unavailable):
    """The server has not loaded and proved its releases yet, or nothing is deployed."""

    code = "serving.not_ready"


class WhichModel(UsageError):
    """Several models are served and the path names none."""

    code = "serving.which_model"
    http_status = 404


class NothingStored(UsageError):
    """No batch has stored a prediction of this key."""

    code = "serving.nothing_stored"
    http_status = 404


class NotTrusted(Unavailable):
    """The key that signed what a deployment answers with was revoked."""

    code = "serving.not_trusted"


class RouteOlder(Failed):
    """A route file has a lower generation than the one in use."""

    code = "route.older"


class ReleaseMismatch(Failed):
    """A bundle is not the release, or not of the model, that the route names."""

    code = "serving.release_mismatch"


class Service:
    """The deployments that one process serves.

    refresh() takes up what changed and never raises for a single deployment; `state()` says what was refused and why.
    trusted_keys, vouch: the keys and how a bundle is verified by them. Of WatchedKeys changes are taken up.
    memory_budget: bytes that loaded models may take; see `serving.scoring.on_demand`. Without one all of them stay
    loaded.
    metrics, place: of one of several workers, its own.
    refuse_distrusted: whether requests are refused, not only reported, while nothing vouches for what would answer.
    elsewhere: the deployments whose requests have to wait, for another process that scores, a model that is loaded
        again, or a slow online store; None among them when the only one does.
    """

    def __init__(
        self,
        *,
        routes: RouteStore | None = None,
        verify: Verify | None = None,
        read_bundle: ReadBundle | None = None,
        open_release: OpenRelease | None = None,
        trusted_keys: TrustedKeys | None = None,
        vouch: Vouch | None = None,
        refuse_distrusted: bool = False,
        online: OnlineStore | None = None,
        log: PredictionLog | None = None,
        replay: bool = False,
        now_us: Callable[[], int] = machine_us,
        max_rows: int = 1000,
        only: Sequence[str] | None = None,
        metrics: Metrics | None = None,
        place: Place | None = None,
        memory_budget: int | None = None,
    ) -> None:
        self.metrics = metrics or (Metrics() if place is None else Metrics(place.metrics, place.slot))
        self.predictors: dict[str, Predictor] = {}
        self.elsewhere: frozenset[str | None] = frozenset()
        self.draining = False
        self._default: Predictor | None = None
        self._routes = routes
        self._verify = verify
        self._read_bundle = read_bundle
        self._open_release = open_release
        self._trusted = trusted_keys or {}
        self._keys = trusted_keys if isinstance(trusted_keys, WatchedKeys) else None
        self._vouch = vouch
        self._refuse_distrusted = refuse_distrusted
        self.online = None if online is None else WatchedStore(online, self._settle)
        self.log = self.metrics.log = log
        if log is not None and log.ships:
            self.metrics.registry.register(Unshipped(log))
        self._replay = replay
        self._now_us = now_us
        self._max_rows = max_rows
        self._only = None if only is None else frozenset(only)
        self._seen: dict[str, tuple[int, int, int]] = {}
        self._taken: dict[str, RouteFile] = {}
        self._releases: dict[str, Release] = {}
        self._refused: dict[str, SeatrialError] = {}
        self._proved = False
        self._no_log = ""  # why the log's folder took nothing when the server began
        # of each release the key that signed it, and where its bundle is
        self._signers: dict[str, tuple[str, str]] = {}
        self._distrusted: dict[str, str] = {}
        self._withheld: dict[str, Predictor] = {}
        self._look_again = 0.0
        self.place = place
        self._settling = threading.RLock()
        self._shelf = None if memory_budget is None else Shelf(memory_budget, self._settle)

    # -- answering

    def predictor(self, name: str | None) -> Predictor:
        """The deployment's predictor; without a name the only one there is.

        Raises NotReady, NotFound or WhichModel.
        """
        found = self._default if name is None else self.predictors.get(name)
        if found is not None:
            return found
        if name in self._withheld or (name is None and len(self._withheld) == 1 and not self.predictors):
            raise NotTrusted(
                "the key that signed this release was revoked.",
                state="Nothing was predicted.",
                next="Have the release signed again: `seatrial releases resign`.",
            )
        if not self.predictors:
            raise NotReady(
                "nothing can be predicted yet.", expected=self._reason(), state="", next="Ask /ready.", retry_after=1
            )
        if name is not None:
            raise NotFound(
                "no deployment has this name.",
                expected=f"There are {listed(sorted(self.predictors))}. {did_you_mean(name, self.predictors)}".strip(),
                state="",
            )
        raise WhichModel(
            "several models are served here.",
            expected=f"Name one of {listed(sorted(self.predictors))}: POST /models/NAME/predict.",
            state="",
        )

    def state(self) -> dict[str, Any]:
        """Whether everything is served, why not, and what is served; of several workers, by every one of them."""
        own = self._reason()
        reason, workers = (own, []) if self.place is None else self.place.together(own)
        told = {} if self.place is None else {"worker": self.place.slot, "workers": workers}
        return {
            "ready": not reason,
            "live": True,
            "reason": reason,
            "deployments": {
                name: {
                    "generation": self._taken[name].generation if name in self._taken else 0,
                    "arms": [_told_of(share) for share in predictor.shares],
                }
                | ({} if predictor.cached is None else {"cache": predictor.cached})
                | ({"ignored": predictor.ignored} if predictor.ignored else {})
                for name, predictor in sorted(self.predictors.items())
            },
            "refused": {name: error.code for name, error in sorted(self._refused.items())},
            "distrusted": self.distrusted,
        } | (told if self._shelf is None else told | {"memory": self._shelf.told()})

    @property
    def distrusted(self) -> dict[str, str]:
        """The deployments that answer, or would, with what no trusted key vouches for any more, and why."""
        return dict(sorted(self._distrusted.items()))

    def _reason(self) -> str:
        if self.draining:
            return "The server is shutting down."
        if not self._proved:
            return "Releases are being loaded and their golden rows replayed."
        if self._no_log:
            return self._no_log
        if self._withheld:
            return f"Deployment '{min(self._withheld)}' is not served ({NotTrusted.code})."
        missing = sorted(self._refused.keys() - self.predictors.keys())
        if missing:
            return f"Deployment '{missing[0]}' is not served ({self._refused[missing[0]].code})."
        return "" if self.predictors else "Nothing is deployed."

    # -- taking up what changed

    async def watch(self) -> None:
        """Take up changed routes as long as the task runs. Files are only looked at until one has changed."""
        while True:
            if not self._proved or self._changed():
                await asyncio.to_thread(self.refresh)
            if self._no_log:
                await asyncio.to_thread(self._look_at_log)
            if self.metrics.refusals is not None:
                self.metrics.refusals.look()
            await asyncio.sleep(WATCH_SECONDS)

    def refresh(self) -> None:
        """Take up every key and every route that is new or changed."""
        keys_changed = self._keys is not None and self._keys.changed()
        if self._keys is not None and keys_changed:
            self._keys.refresh()
            for name in self._refused:  # what was refused may be trusted now
                self._seen.pop(name, None)
        if self._routes is not None:
            for name in self._names():
                stamp = self._stamp(name)
                if stamp is not None and stamp != self._seen.get(name):
                    self._take_up(name)
                    self._seen[name] = stamp
                    keys_changed = True
        if keys_changed or self._distrusted:
            self._look_at_trust()
        if self._proved:
            self._settle()
        else:
            self.prove()

    def _look_at_log(self) -> None:
        """See whether the log's folder takes what is to be answered, where nothing leaves without."""
        if self.log is not None and self.log.when_full == "refuse":
            before, self._no_log = self._no_log, ""
            try:
                self.log.check()
            except LogUnwritable as error:
                self._no_log = f"{error.found} [{error.code}]"
            if before != self._no_log:
                _LOGGER.warning("%s", self._no_log or "the prediction log can be written now")
                self._settle()

    def _look_at_trust(self) -> None:
        """See for which deployments no trusted key vouches, and report, or withhold, them."""
        self._look_again = monotonic() + DISTRUST_SECONDS
        every = self.predictors | self._withheld
        found = {name: why for name, one in every.items() if (why := self._not_vouched(name, one))}
        for name in every:
            if found.get(name) != self._distrusted.get(name):
                self.metrics.distrusted(name, now=name in found)
                if name in found:
                    _LOGGER.warning("deployment '%s' is not trusted any more: %s", name, found[name])
                else:
                    _LOGGER.warning("deployment '%s' is trusted again", name)
        self._distrusted = found
        if self._refuse_distrusted:
            self._withheld = {name: every[name] for name in found}
            self.predictors = {name: one for name, one in every.items() if name not in found}

    def _not_vouched(self, name: str, predictor: Predictor) -> str:
        """Why a deployment is not trusted any more; empty when it is."""
        for share in predictor.shares:
            if not self._trusts(share.release.id):
                signer, bundle = self._signers[share.release.id]
                try:
                    self._vouch_again(share.release.id, bundle)
                except SeatrialError as error:
                    return f"release {share.release.id} is signed by {signer}, and: {error.found}"
        if name in self._taken and self._routes is not None and self._verify is not None:
            try:
                self._routes.read(name, self._verify)
            except RouteNotTrusted as error:
                return error.found
            except SeatrialError:
                pass  # one that is damaged was not taken, which is told as refused
        return ""

    def _trusts(self, release: str) -> bool:
        if self._keys is None or release not in self._signers:
            return True
        return self._signers[release][0] in self._keys

    def _vouch_again(self, release: str, bundle: str) -> None:
        """Take note of who signs a release now. Raises what `vouch` raises, and ReleaseMismatch."""
        if self._vouch is None or self._read_bundle is None:
            return
        found = self._vouch(self._read_bundle(bundle))
        if found.id != release:
            raise ReleaseMismatch(f"bundle {bundle} is {found.id} now, not {release}.", state="It was not taken.")
        self._signers[release] = (found.keyid, bundle)

    def serve(self, name: str, predictor: Predictor) -> None:
        """Answer for `name` with `predictor` from now on; requests under way end with the one before."""
        self.predictors = self.predictors | {name: predictor}
        self._withheld.pop(name, None)
        self._refused.pop(name, None)
        self._settle()

    def prove(self) -> None:
        """Say that all there is to serve was given with `serve`."""
        self._look_at_log()
        self._proved = True
        self._settle()

    def drain(self) -> None:
        """Be no longer ready, and go on answering."""
        self.draining = True
        self._settle()

    def accepting(self) -> None:
        """Say that connections are accepted from now on."""
        if self.place is not None:
            self.place.accepting = True
        self._settle()

    def close(self) -> None:
        """Close the prediction log's segment, so that it can be compacted, the online store and the metrics."""
        if self.log is not None:
            self.log.close()
        if self.online is not None:
            self.online.close()
        self.metrics.close()

    def make_predictor(self, name: str, shares: Sequence[Share], route: RouteFile | None = None) -> Predictor:
        """A predictor over this service's stores."""
        return Predictor(
            name,
            shares,
            metrics=self.metrics,
            log=self.log,
            online=self.online,
            salt=route.salt if route else "",
            route_by=route.route_by if route else None,
            on_store_failure=route.on_store_failure if route else "refuse",
            defaults=route.defaults if route else None,
            cache=route.cache if route else 0,
            sent=route.sent if route else None,
            replay=self._replay,
            now_us=self._now_us,
            max_rows=self._max_rows,
        )

    def stored(self, model: str, key: str) -> tuple[StoredPrediction, float]:
        """What a batch said of a key of a model last, and how many seconds ago; 0 when that instant is to come yet.

        Raises NothingStored, NotFound when no such model is served here either, and StoreDown when the online store
        cannot be asked.
        """
        try:
            found = None if self.online is None else read_stored(self.online, model, key)
        except (OnlineStoreUnavailable, OnlineStoreDamaged, OnlineStoreTooNew) as error:
            _LOGGER.warning("a stored prediction of '%s' cannot be read: %s [%s]", model[:100], error.found, error.code)
            if model in self.models:
                self.metrics.store_failed(model, error.code)
            raise StoreDown("the online store does not answer.", state="", next="Try again.") from None
        if found is None and self.models and model not in self.models:
            raise NotFound(
                "no model of this name is served, and no prediction of it is stored.",
                expected=f"There are {listed(sorted(self.models))}. {did_you_mean(model, self.models)}".strip(),
                state="",
            )
        if found is None:
            raise NothingStored(
                "no prediction of this key is stored." if self.online else "this server has no online store.",
                expected="A batch with the online store as its sink stores one for each key.",
                state="",
            )
        return found, max(0.0, (self._now_us() - to_us(found.as_of)) / 1e6)

    @property
    def models(self) -> set[str]:
        """The models that answer here."""
        return {share.release.model for one in self.predictors.values() for share in one.shares}

    def route(self, name: str) -> RouteFile | None:
        """The route file that a deployment answers by; None when it was given with `serve`."""
        return self._taken.get(name)

    def _names(self) -> list[str]:
        names = self._routes.names() if self._routes is not None else []
        return [name for name in names if self._only is None or name in self._only]

    def _changed(self) -> bool:
        if self._keys is not None and self._keys.changed():
            return True
        if self._distrusted and monotonic() >= self._look_again:
            return True
        return any(self._stamp(name) != self._seen.get(name) for name in self._names())

    def _stamp(self, name: str) -> tuple[int, int, int] | None:
        if self._routes is None:
            return None
        try:
            status = self._routes.path(name).stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino, status.st_size

    def _take_up(self, name: str) -> None:
        try:
            route = self._read(name)
            if route is not None:
                shares = [
                    Share(arm.name, self._release(arm.release, arm.bundle, route.model), arm.share)
                    for arm in route.arms
                ]
                self.serve(name, self.make_predictor(name, shares, route))
                self._taken[name] = route
                self.metrics.took_up(name, route.generation)
        except SeatrialError as error:
            self._refused[name] = error
            self.metrics.refused(name, error.code)
        # releases that no route uses any more give their memory back
        used = {arm.release for route in self._taken.values() for arm in route.arms}
        self._releases = {release: loaded for release, loaded in self._releases.items() if release in used}
        self._signers = {release: signer for release, signer in self._signers.items() if release in used}

    def _read(self, name: str) -> RouteFile | None:
        if self._routes is None or self._verify is None:
            return None
        route = self._routes.read(name, self._verify)
        taken = self._taken.get(name)
        if route is not None and taken is not None and route.generation < taken.generation:
            raise RouteOlder(
                f"the route file of '{name}' has generation {route.generation}, in use is {taken.generation}.",
                state="It was not taken.",
                next=f"Deploy '{name}' again.",
            )
        return route

    def _release(self, release_id: str, bundle: str, model: str) -> Release:
        loaded = self._releases.get(release_id)
        if loaded is not None and not self._trusts(release_id):
            self._vouch_again(release_id, bundle)
        if loaded is None:
            if self._read_bundle is None or self._open_release is None:
                raise NotReady("this service has no object store.", state="")
            loaded = self._open_release(self._read_bundle(bundle), self._trusted)
            if loaded.id != release_id or loaded.model != model:
                raise ReleaseMismatch(
                    f"bundle {bundle} is {loaded.id} of model '{loaded.model}', the route names {release_id} "
                    f"of '{model}'.",
                    state="It was not taken.",
                )
            self.vouched(loaded, bundle)
            if self._shelf is not None:
                known = {id: public for id, public in self._trusted.items() if id == loaded.signed_by}
                loaded = self._shelf.keep(loaded, partial(self._again, release_id, bundle, known))
            self._releases[release_id] = loaded
        return loaded

    def _again(self, release_id: str, bundle: str, known: dict[str, bytes]) -> Release:
        """A release that was let go, opened anew.

        known: the key that vouched for it when it was taken up; whether it is trusted still is looked at elsewhere, for
        what is loaded as for what is not.
        """
        assert self._read_bundle is not None
        assert self._open_release is not None
        release = self._open_release(self._read_bundle(bundle), {**self._trusted, **known})
        if release.id != release_id:
            raise ReleaseMismatch(f"bundle {bundle} is {release.id} now, not {release_id}.", state="It was not taken.")
        return release

    def vouched(self, release: Release, bundle: str) -> None:
        """Take note of who signed a release, and where its bundle is, for when that key is revoked."""
        self._signers[release.id] = (release.signed_by, bundle)

    def _settle(self) -> None:
        with self._settling:
            self._default = next(iter(self.predictors.values())) if len(self.predictors) == 1 else None
            elsewhere: set[str | None] = {
                name
                for name, one in self.predictors.items()
                if one.elsewhere or resting(one) or (one.looks_up and self.online is not None and self.online.slow)
            }
            if self._default is not None and elsewhere:
                elsewhere.add(None)
            self.elsewhere = frozenset(elsewhere)
            reason = self._reason()
            self.metrics.ready.set(0 if reason else 1)
            self.metrics.loaded(*self._loaded())
            if self.place is not None:
                self.place.say(reason, {name: route.generation for name, route in self._taken.items()})

    def _loaded(self) -> tuple[int, int]:
        """How many releases are loaded, and what their models take."""
        every = {share.release.id: share.release for one in self.predictors.values() for share in one.shares}
        loaded = [one for one in every.values() if not (isinstance(one.score, OnDemand) and one.score.resting)]
        return len(loaded), sum(one.bytes for one in loaded)


def load(
    *,
    routes: Path,
    read_bundle: ReadBundle,
    trusted_keys: TrustedKeys,
    online: OnlineStore | None,
    log: PredictionLog | None,
    replay: bool = False,
    now_us: Callable[[], int] = machine_us,
    only: Sequence[str] | None = None,
    refuse_distrusted: bool = False,
    metrics: Metrics | None = None,
    place: Place | None = None,
    memory_budget: int | None = None,
) -> Service:
    """The service of a folder of route files. Releases are loaded by the first `refresh`, which `run` calls.

    routes: the folder of route files. trusted_keys: the keys whose routes and bundles are taken; of WatchedKeys
        changes are taken up.
    read_bundle: where bundles come from, usually `ObjectStore.read`.
    only: these deployments, not every one that has a route.
    memory_budget: bytes that the loaded models may take; see `serving.scoring.on_demand`.
    """
    return Service(
        routes=RouteStore(routes),
        verify=lambda data, signature: is_signed(data, signature, trusted_keys),
        read_bundle=read_bundle,
        open_release=open_release,
        trusted_keys=trusted_keys,
        vouch=lambda data: open_bundle(data, trusted_keys),
        refuse_distrusted=refuse_distrusted,
        online=online,
        log=log,
        replay=replay,
        now_us=now_us,
        only=only,
        metrics=metrics,
        place=place,
        memory_budget=memory_budget,
    )


def from_bundle(
    path: Path,
    *,
    trusted_keys: TrustedKeys,
    log: PredictionLog | None,
    online: Callable[[], OnlineStore] | None = None,
    replay: bool = False,
    refuse_distrusted: bool = False,
    metrics: Metrics | None = None,
    place: Place | None = None,
) -> Service:
    """The service of one bundle file, ready to answer.

    online: opens the online store; called only for a release that looks features up.
    Raises what opening the bundle raises, GoldenMismatch when its golden rows disagree, NoOnlineStore when it looks
    features up and `online` is None.
    """
    release = open_release(path, trusted_keys)
    store = online() if online is not None and release.plan.views else None
    service = Service(
        read_bundle=lambda key: Path(key).read_bytes(),
        trusted_keys=trusted_keys,
        vouch=lambda data: open_bundle(data, trusted_keys),
        refuse_distrusted=refuse_distrusted,
        online=store,
        log=log,
        replay=replay,
        metrics=metrics,
        place=place,
    )
    service.vouched(release, str(path))
    service.serve(release.model, service.make_predictor(release.model, [Share("live", release, BUCKETS)]))
    service.prove()
    return service


def _told_of(share: Share) -> dict[str, Any]:
    release = share.release
    told: dict[str, Any] = {
        "name": share.name,
        "model": release.model,
        "version": release.version,
        "release": release.id,
        "share": share.share,
    }
    if release.elsewhere:
        told |= {"process": {"bytes": release.bytes, "start_s": release.start_s}}
    if isinstance(release.score, OnDemand):
        told |= {"loaded": not release.score.resting}
    return told
