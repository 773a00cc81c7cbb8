"""A folder from which Docker builds a server for one release.

It holds all that the image needs but Python itself and the pinned packages: the bundle, the key that it is
verified with, seatrial as a wheel, and a Dockerfile for a server that is not root and knows whether it is healthy.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import seatrial
from seatrial.core.errors import Failed, listed
from seatrial.export.build_folder import USER, WHEEL, dockerignore, system_packages, write
from seatrial.releases.bundle import LOCK, Bundle, open_bundle
from seatrial.releases.formats import model_file, packages
from seatrial.releases.signing import TrustedKeys, public_pem
from seatrial.stores.personal_key import VARIABLE as PERSONAL_KEY

# The base dependencies of seatrial (pyproject.toml): what a server imports, and nothing that trains.
SERVING = (
    "blake3 click cronsim cryptography duckdb fastapi httptools msgspec numpy onnxruntime prometheus-client pyarrow "
    "rich tzdata uvicorn uvloop"
).split()
ONLINE = ("redis", "hiredis")  # of the extra, for an online store on Redis; in the image when the lock has them
OTHER_NAMES = {"xgboost": ("xgboost", "xgboost-cpu")}  # distributions of one module
BUNDLE_FILE = "release.seatrial"
KEYS = "keys"
PORT = 8080  # where SageMaker, Vertex AI and KServe look
STATE = "/var/lib/seatrial"
LOG, LOCAL, TEMPORARY = f"{STATE}/log", f"{STATE}/state", "/tmp"
"""Every place that the container writes to: the prediction log, what it keeps beside it, and what may be lost."""
OBJECTS = f"{STATE}/objects"
"""Where the log is shipped to, when it is: a volume that outlives the container's others."""
ENTRYPOINT = ("seatrial",)
COMMAND = ("serve",)
"""SageMaker starts `IMAGE serve`; without words it is the same."""
ENVIRONMENT = {
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "HOME": TEMPORARY,
    "SEATRIAL_BUNDLE": f"/app/{BUNDLE_FILE}",
    "SEATRIAL_HOST": "0.0.0.0",
    "SEATRIAL_PORT": str(PORT),
    "SEATRIAL_WORKERS": "0",  # one for each core that the container has
    "SEATRIAL_STORES_LOG": LOG,
    "SEATRIAL_LOG_SHIP": "never",  # until there is a volume at OBJECTS
    "SEATRIAL_STORES_OBJECTS": OBJECTS,
    "SEATRIAL_STORES_ONLINE": f"sqlite:///{LOCAL}/online.db",
}
HEALTH = (
    "import os, urllib.request as r; "
    "r.urlopen('http://127.0.0.1:%s/health' % os.environ['SEATRIAL_PORT'], timeout=2).read()"
)


class NotPinned(Failed):
    """A requirement of the image is not pinned to one version, or the lock lacks a package that serving needs."""

    code = "export.not_pinned"


def export(
    bundle_path: Path,
    folder: Path,
    *,
    trusted: TrustedKeys,
    requirements: Sequence[str] | None = None,
    image_python: str = "3.11",
) -> list[str]:
    """Write the build folder for one release; the names of the files written, sorted.

    folder: is made; when it exists it must be empty. It appears whole or not at all.
    trusted: public keys; the bundle is verified first, and the key that signed it goes into the image.
    requirements: pinned lines for requirements.txt; by default `serving_requirements` of the bundle's own lock.
    image_python: the tag of the base image begins with it; the Python that the requirements were locked for.
    Raises FolderNotEmpty, CannotWrite, NotPinned, and what `bundle.open_bundle` raises.
    """
    bundle = open_bundle(bundle_path, trusted)
    if requirements is None:
        requirements = serving_requirements(
            bundle.files[LOCK].decode() if LOCK in bundle.files else "", scored_by=scored_by(bundle)
        )
    _check_pinned(requirements)
    hashed = all("--hash=" in line for line in requirements)
    files = {
        "Dockerfile": _dockerfile(bundle, image_python, hashed=hashed).encode(),
        "requirements.txt": ("\n".join(requirements) + "\n").encode(),
        ".dockerignore": dockerignore(["requirements.txt", WHEEL, BUNDLE_FILE, KEYS]).encode(),
        "README.md": _readme(bundle).encode(),
        BUNDLE_FILE: bundle_path.read_bytes(),
        f"{KEYS}/{bundle.keyid}.pub": public_pem(trusted[bundle.keyid]),
    }
    return write(folder, files)


def scored_by(bundle: Bundle) -> tuple[str, ...]:
    """The packages with which the child process of a release scores; none for one that answers with ONNX."""
    format = bundle.manifest.model_format
    return packages(format, bundle.files[model_file(format)])


def hashed_columns(bundle: Bundle) -> list[str]:
    """The columns that the log keeps as pseudonyms, for which the server needs a key."""
    return sorted(name for name, how in bundle.manifest.signature.personal.items() if how == "hash")


def serving_requirements(lock: str, scored_by: Sequence[str] = ()) -> list[str]:
    """The entries of a lock file that a server needs: SERVING and, as installed here, all that those require.

    scored_by: further packages, those of the release's child process; each may stand under another name in the lock
    (OTHER_NAMES).
    lock: text of a requirements file with one pinned entry per package, hashes on continued lines; empty: the
    versions that are installed here are pinned, without hashes.
    What an online store on Redis needs is among them when the lock has it.
    Returns entries sorted by name, markers and hashes kept. Raises NotPinned when the lock lacks one of SERVING.
    """
    entries = dict(_entries(lock)) or {
        _key(distribution.name): f"{distribution.name}=={distribution.version}"
        for distribution in importlib.metadata.distributions()
    }
    wanted = [
        next((name for name in OTHER_NAMES.get(package, (package,)) if name in entries), package)
        for package in (*SERVING, *scored_by)
    ]
    missing = [name for name in wanted if name not in entries]
    if missing:
        raise NotPinned(
            f"the lock has no {listed(missing)}.",
            expected="Every package that serving needs is pinned in the release's lock.",
            next="Lock the environment again and release again, or give the requirements.",
        )
    needed: set[str] = set()
    open_names = [*wanted, *(name for name in ONLINE if name in entries)]
    while open_names:
        name = open_names.pop()
        if name in needed or name not in entries:
            continue  # not in a universal lock: needed on another Python or platform only
        needed.add(name)
        open_names += _required_by(name)
    return [entries[name] for name in sorted(needed)]


def _entries(lock: str) -> Iterator[tuple[str, str]]:
    """(package, entry with its continued lines) of a requirements file."""
    for entry in re.split(r"(?<!\\)\n", lock):
        name = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", entry)
        if name:
            yield _key(name[0]), entry.rstrip()


def _required_by(name: str) -> list[str]:
    """What a package requires without extras; markers are left to the lock, which keeps its own."""
    try:
        required = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    names = (re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", text) for text in required if "extra ==" not in text)
    return [_key(found[0]) for found in names if found]


def _key(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _check_pinned(requirements: Iterable[str]) -> None:
    loose = [line for line in requirements if not re.match(r"[A-Za-z0-9][A-Za-z0-9._\[\],-]*==[^*\s;]+(\s|;|$)", line)]
    if loose or "://" in "".join(requirements):
        raise NotPinned(
            f"{listed(loose) if loose else 'an address'} in the requirements is not a version of a package.",
            expected="Lines such as numpy==2.4.0 are expected, with or without hashes.",
        )


def _dockerfile(bundle: Bundle, image_python: str, *, hashed: bool) -> str:
    require_hashes = " --require-hashes" if hashed else ""
    variables = " \\\n    ".join(f"{name}={value}" for name, value in ENVIRONMENT.items())
    labels = " \\\n    ".join(f"{name}={json.dumps(value)}" for name, value in _labels(bundle).items())
    return f"""\
# Another base, or a mirror's: docker build --build-arg BASE=NAME@sha256:...
ARG BASE=python:{image_python}-slim-bookworm
FROM ${{BASE}}

ENV {variables}
WORKDIR /app
{system_packages(scored_by(bundle))}
COPY requirements.txt {WHEEL} /tmp/
RUN python -m pip install --no-cache-dir --only-binary=:all:{require_hashes} -r /tmp/requirements.txt \\
    && python -m pip install --no-cache-dir --no-deps /tmp/{WHEEL} \\
    && rm /tmp/requirements.txt /tmp/{WHEEL} \\
    && groupadd --gid {USER} seatrial \\
    && useradd --uid {USER} --gid {USER} --no-create-home --home-dir {TEMPORARY} --shell /usr/sbin/nologin seatrial \\
    && mkdir -p {LOG} {LOCAL} {OBJECTS} \\
    && chown -R {USER}:0 {STATE} && chmod -R 0770 {STATE}

# Root's, and read by everybody: the server changes nothing of what it is made of
COPY {KEYS}/ .seatrial/keys/trusted/
COPY {BUNDLE_FILE} ./

LABEL {labels}

USER {USER}:{USER}
EXPOSE {PORT}
VOLUME ["{LOG}", "{LOCAL}"]
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=3s --start-period=20s --retries=3 \\
    CMD ["python", "-c", "{HEALTH}"]
ENTRYPOINT {json.dumps(ENTRYPOINT)}
CMD {json.dumps(COMMAND)}
"""


def _labels(bundle: Bundle) -> dict[str, str]:
    """What the image says of itself: the names that the OCI gave, and the release's id."""
    manifest = bundle.manifest
    commit = manifest.lineage.commit
    return {
        "org.opencontainers.image.title": manifest.model,
        "org.opencontainers.image.version": manifest.semantic_version,
        "org.opencontainers.image.description": f"seatrial {seatrial.__version__} serves {manifest.model} "
        f"{manifest.semantic_version}",
        **({"org.opencontainers.image.revision": commit} if commit else {}),
        "seatrial.release": bundle.id,
        "seatrial.signed-by": bundle.keyid,
    }


def _readme(bundle: Bundle) -> str:
    manifest = bundle.manifest
    tag = f"{manifest.model.lower()}:{manifest.semantic_version}"
    return f"""\
# {manifest.model} {manifest.semantic_version}

A server for release `{bundle.id}` (model version {manifest.version}), signed by `{bundle.keyid}`.

    docker build --tag {tag} .
    docker run --rm --read-only --tmpfs {TEMPORARY} --cap-drop ALL --security-opt no-new-privileges \\
        --volume {manifest.model.lower()}-log:{LOG} --publish {PORT}:{PORT} {tag}

It answers `POST /predict`, `GET /health`, `GET /ready` and `GET /metrics` on port {PORT}; `/docs` shows a request. It
runs as user {USER} and writes to three places: the prediction log in `{LOG}`, `{LOCAL}`, and `{TEMPORARY}`. The first
is what must be kept: a container that starts again on the same volume goes on with its log. `docker stop` lets it
answer what has come in; give it `--time 40`. With a further volume at `{OBJECTS}` and `--env SEATRIAL_LOG_SHIP=60s`
the log is also shipped there, as Parquet, within a minute, and the rest of it when the container is stopped.

`docker run ... {tag} serve` is the same, which is how SageMaker starts it.
{_personal_words(bundle)}{_features_words(bundle)}"""


def _personal_words(bundle: Bundle) -> str:
    """What the server needs to make pseudonyms; empty for a release that makes none."""
    names = hashed_columns(bundle)
    if not names:
        return ""
    return f"""
It keeps {listed(names)} as pseudonyms in its log, and does not serve without the key that makes them, the same on every
host: `--env {PERSONAL_KEY}="$(cat .seatrial/keys/personal.key)"`, from where secrets are kept. It is in no file here.
"""


def _features_words(bundle: Bundle) -> str:
    """What the server needs to look features up; empty for a release that does not."""
    views = [view.name for view in bundle.manifest.plan.views]
    if not views:
        return ""
    return f"""
It looks up {listed(views)} in the online store `{LOCAL}/online.db`, which `seatrial materialize` and `push` keep up
to date: mount the project's there, or name another path with SEATRIAL_STORES_ONLINE=sqlite:////PATH, or a server with
SEATRIAL_STORES_ONLINE=redis://HOST:PORT/DB and the project's name in SEATRIAL_NAME (requirements.txt has redis when the
release's lock has it). In an empty store every feature is missing, and the log says so.
"""
