"""Feast's own environment: `.venv-feast` at the repository's root, made on the first use.

Feast holds pandas, redis and others back, so it lives apart from what it is compared with. The versions stand in
`feast_requirements.txt`; where they come from is the installer's setting (UV_DEFAULT_INDEX or its like).
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
HOME = ROOT / ".venv-feast"
REQUIREMENTS = Path(__file__).resolve().parents[1] / "feast_requirements.txt"
CONTESTANT = Path(__file__).resolve().parent / "feast_contestant.py"


def feast_python() -> Path:
    """The interpreter of an environment that holds exactly the requirements; takes a minute when it has to be made."""
    python = HOME / "bin" / "python"
    built = HOME / "requirements"
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    if python.exists() and built.exists() and built.read_text() == wanted:
        return python
    beside = Path(sys.executable).parent / "uv"
    uv = str(beside) if beside.exists() else shutil.which("uv")
    if uv is None:
        raise SystemExit("uv is needed to make Feast's environment: run `make venv`, or leave Feast out (--no-feast).")
    print(f"making {HOME.name} from {REQUIREMENTS.name} ...", file=sys.stderr)
    subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(HOME)], check=True)
    sync = [uv, "pip", "sync", "--quiet", "--compile-bytecode", "--python", str(python), str(REQUIREMENTS)]
    subprocess.run(sync, check=True)
    built.write_text(wanted)
    return python
