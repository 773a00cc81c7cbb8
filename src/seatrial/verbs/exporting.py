"""Exporting: which release leaves the project, and may it?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from seatrial.core.errors import NotAllowed, listed
from seatrial.core.records import Record
from seatrial.deployment.deploy import live
from seatrial.stores.personal_key import VARIABLE

if TYPE_CHECKING:
    from seatrial.verbs.building import Building


class NotForExport(NotAllowed):
    """A release is to be exported that nobody approved, or that was rolled back, and no reason is written down."""

    code = "export.not_approved"


def exported_release(project: Building, name: str | None, *, reason: str = "") -> Record:
    """The release that a name means where it leaves the project.

    name: as of `Project.chosen_release`; but of a model alone, or of none, it is the live release, else the newest that
    may go live. Raises NotForExport for one that policy would not let go live, or that was rolled back, unless a reason
    is given.
    """
    model = name or project._model(None).name
    chosen = None
    if model in project._models():
        chosen = _live(project, model) or _newest_allowed(project, model)
    chosen = chosen or project.chosen_release(None, name)
    why = _not_allowed(project, chosen)
    if why and not reason.strip():
        raise NotForExport(
            f"release {chosen.id} of model '{chosen.body['model']}' {why}.",
            expected="What is exported runs where no deployment of this project decides.",
            state="Nothing was written.",
            next=f"Name another one, let somebody `seatrial approve {chosen.id}`, or write down why: --reason.",
        )
    return chosen


def described(project: Building, name: str | None, *, reason: str = "") -> dict[str, str]:
    """`exported_release` for people: its id, its version, which it is, and what its server needs besides."""
    release = exported_release(project, name, reason=reason)
    personal = release.body["manifest"]["signature"].get("personal", {})
    hashed = sorted(column for column, how in personal.items() if how == "hash")
    needs = f"it hashes {listed(hashed)}: give its server {VARIABLE}, see README.md" if hashed else ""
    told = told_of(project, release)
    return {"release": release.id, "version": str(release.body["version"]), "told": told, "needs": needs}


def told_of(project: Building, release: Record) -> str:
    """Which release it is, and whether it is live, approved, or neither, in one line."""
    body = release.body
    words = f"version {body['version']} of {body['model']}, {body['semantic_version']} ({release.id})"
    names = project._deployments_of(body["model"])
    at = [name for name in names if (found := live(project.metadata, name)) and found.record.inputs[0] == release.id]
    if at:
        words += f", live in '{at[0]}'"
    for name in names:
        approval = _approval(project, name, release.id)
        if approval:
            return f"{words}, {approval}"
    why = _not_allowed(project, release)
    return f"{words}, {why or 'not approved, which policy does not ask for'}"


def _live(project: Building, model: str) -> Record | None:
    found = (live(project.metadata, name) for name in project._deployments_of(model))
    return next((project.record(one.record.inputs[0]) for one in found if one), None)


def _newest_allowed(project: Building, model: str) -> Record | None:
    for one in reversed(project.releases(model)):
        release = project.record(one["release"])
        if not _not_allowed(project, release):
            return release
    return None


def _approval(project: Building, deployment: str, release: str) -> str:
    from seatrial.retraining.approval import approval_of

    found = approval_of(project.metadata, deployment, release)
    return f"{found.decision} by {found.actor} at {found.at}: {found.reason}" if found else ""


def _not_allowed(project: Building, release: Record) -> str:
    """Why a release would not be let into traffic without a word; empty when it would."""
    from seatrial.retraining.approval import approval_of

    model = release.body["model"]
    back = project._taken_back(model).get(release.id)
    if back is not None:
        return f"was {back.words}"
    names = project._deployments_of(model)
    if project.settings.policy.approval != "required" or any(project._was_live(name, release.id) for name in names):
        return ""
    said = [one for name in names if (one := approval_of(project.metadata, name, release.id)) is not None]
    if any(one.decision == "approved" for one in said):
        return ""
    return f"was rejected by {said[0].actor}: {said[0].reason}" if said else "was approved by nobody"
