"""A folder from which Docker builds a server for one release.

It holds all that the image needs but Python itself and the pinned packages: the bundle, the key that it is
verified with, seatrial as a wheel, and a Dockerfile for a server that is not root and knows whether it is healthy.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import io
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import seatrial
from seatrial.core.errors import Failed, UsageError, listed
from seatrial.releases.bundle import LOCK, Bundle, open_bundle
from seatrial.releases.formats import model_file, packages
from seatrial.releases.signing import TrustedKeys, public_pem

# The base dependencies of seatrial (pyproject.toml): what a server imports, and nothing that trains.
SERVING = (
    "blake3 click cryptography duckdb fastapi httptools msgspec numpy onnxruntime prometheus-client pyarrow rich "
    "tzdata uvicorn uvloop"
).split()
ONLINE = ("redis", "hiredis")  # of the extra, for an online store on Redis; in the image when the lock has them
OTHER_NAMES = {"xgboost": ("xgboost", "xgboost-cpu")}  # distributions of one module
LIBRARIES = {"lightgbm": "libgomp1"}  # Debian packages that a wheel needs and does not bring along
PORT = 8000
COMMAND = ("seatrial", "serve", "--bundle", "/app/release.seatrial", "--host", "0.0.0.0", "--port", str(PORT))
HEALTH = f"import urllib.request as r; r.urlopen('http://127.0.0.1:{PORT}/health', timeout=2).read()"
BUNDLE_FILE = "release.seatrial"
KEYS = "keys"
_FIXED_TIME = (1980, 1, 1, 0, 0, 0)


class FolderNotEmpty(UsageError):
    """The folder to export to holds something already."""

    code = "export.folder_not_empty"


class CannotWrite(Failed):
    """The folder to export to cannot be made or written."""

    code = "export.cannot_write"


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
    with _explaining(folder):
        taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    if taken:
        raise FolderNotEmpty(
            f"{folder} exists and is not empty.",
            expected="A new or empty folder is expected.",
            next="Name another folder, or remove it first.",
        )
    wheel = f"seatrial-{seatrial.__version__}-py3-none-any.whl"
    hashed = all("--hash=" in line for line in requirements)
    libraries = sorted(LIBRARIES[name] for name in scored_by(bundle) if name in LIBRARIES)
    files = {
        "Dockerfile": _dockerfile(image_python, wheel, hashed=hashed, libraries=libraries).encode(),
        "requirements.txt": ("\n".join(requirements) + "\n").encode(),
        ".dockerignore": _dockerignore(wheel).encode(),
        "README.md": _readme(bundle).encode(),
        BUNDLE_FILE: bundle_path.read_bytes(),
        f"{KEYS}/{bundle.keyid}.pub": public_pem(trusted[bundle.keyid]),
        wheel: _wheel(Path(seatrial.__file__).parent, seatrial.__version__),
    }
    with _explaining(folder):
        _write(folder, files)
    return sorted(files)


def scored_by(bundle: Bundle) -> tuple[str, ...]:
    """The packages with which the child process of a release scores; none for one that answers with ONNX."""
    format = bundle.manifest.model_format
    return packages(format, bundle.files[model_file(format)])


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


def _dockerfile(image_python: str, wheel: str, *, hashed: bool, libraries: Sequence[str]) -> str:
    require_hashes = " --require-hashes" if hashed else ""
    system = f"""
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends {" ".join(libraries)} \\
    && rm -rf /var/lib/apt/lists/*
"""
    installed = system if libraries else ""
    return f"""\
FROM python:{image_python}-slim-bookworm

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
{installed}
COPY requirements.txt {wheel} ./
RUN python -m pip install --no-cache-dir --only-binary=:all:{require_hashes} -r requirements.txt \\
    && python -m pip install --no-cache-dir --no-deps ./{wheel} \\
    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin seatrial \\
    && mkdir -p .seatrial && chown -R seatrial /app

COPY --chown=seatrial {KEYS}/ .seatrial/keys/trusted/
COPY --chown=seatrial {BUNDLE_FILE} ./

USER 10001
EXPOSE {PORT}
HEALTHCHECK --interval=30s --timeout=3s --start-period=20s --retries=3 \\
    CMD ["python", "-c", "{HEALTH}"]
CMD [{", ".join(f'"{word}"' for word in COMMAND)}]
"""


def _dockerignore(wheel: str) -> str:
    kept = ("requirements.txt", wheel, BUNDLE_FILE, KEYS)
    return "\n".join(["*", *(f"!{name}" for name in kept)]) + "\n"


def _readme(bundle: Bundle) -> str:
    manifest = bundle.manifest
    tag = f"{manifest.model.lower()}:{manifest.semantic_version}"
    return f"""\
# {manifest.model} {manifest.semantic_version}

A server for release `{bundle.id}` (model version {manifest.version}), signed by `{bundle.keyid}`.

    docker build --tag {tag} .
    docker run --rm --publish {PORT}:{PORT} {tag}

It answers `POST /predict`, `GET /health` and `GET /metrics` on port {PORT}; `/docs` shows a request. It runs as user
10001 and writes its prediction log below `/app/.seatrial`: mount a volume there to keep it, with the key from
`{KEYS}/` copied to `keys/trusted/` in it.
{_features_words(bundle)}"""


def _features_words(bundle: Bundle) -> str:
    """What the server needs to look features up; empty for a release that does not."""
    views = [view.name for view in bundle.manifest.plan.views]
    if not views:
        return ""
    return f"""
It looks up {listed(views)} in the online store `/app/.seatrial/online.db`, which `seatrial materialize` and `push`
keep up to date: mount the project's there, or name another path with SEATRIAL_STORES_ONLINE=sqlite:////PATH, or a
server with SEATRIAL_STORES_ONLINE=redis://HOST:PORT/DB and the project's name in SEATRIAL_NAME (requirements.txt has
redis when the release's lock has it). In an empty store every feature is missing, and the log says so.
"""


@contextmanager
def _explaining(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CannotWrite(
            f"{folder} cannot be written: {error.strerror or error}.",
            expected="A folder that this user may make, on a disk that has room, is expected.",
            next="Name another folder.",
        ) from None


def _write(folder: Path, files: dict[str, bytes]) -> None:
    """Write all files beside the folder, then put it in place."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        for name, data in files.items():
            path = made / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
        made.chmod(0o755)
        made.replace(folder)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise


def _wheel(package: Path, version: str) -> bytes:
    """The installed package as a wheel (PEP 427), the same bytes every time; its requirements are pinned elsewhere."""
    files = {
        f"{package.name}/{path.relative_to(package).as_posix()}": path.read_bytes()
        for path in sorted(package.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    about = f"seatrial-{version}.dist-info"
    files[f"{about}/METADATA"] = f"Metadata-Version: 2.1\nName: seatrial\nVersion: {version}\n".encode()
    files[f"{about}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: seatrial\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{about}/entry_points.txt"] = b"[console_scripts]\nseatrial = seatrial.cli:main\n"
    rows = [f"{name},sha256={_sha256(data)},{len(data)}" for name, data in files.items()]
    files[f"{about}/RECORD"] = "\n".join([*rows, f"{about}/RECORD,,", ""]).encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, _FIXED_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, data)
    return out.getvalue()


def _sha256(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
