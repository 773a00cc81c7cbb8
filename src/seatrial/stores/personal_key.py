"""The key for pseudonyms of personal columns: where is it kept?

In SEATRIAL_PERSONAL_KEY, any text of 16 bytes and more, or in the file `personal.key` beside the keys that sign; made
when the first release that hashes a column is packed. Whoever serves needs the same one: else equal values have
different pseudonyms.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from seatrial.core.personal import KEY_BYTES, BadPersonal, derived_key

FILE = "personal.key"
VARIABLE = "SEATRIAL_PERSONAL_KEY"
SHORTEST = 16


def read_personal_key(folder: Path, variables: Mapping[str, str]) -> bytes | None:
    """The key; None when there is none. Raises BadPersonal for one that is too short."""
    where, secret = VARIABLE, variables.get(VARIABLE, "").encode("utf-8", "surrogateescape")
    if not secret:
        where = str(folder / FILE)
        with suppress(OSError):
            secret = (folder / FILE).read_bytes().strip()
    if not secret:
        return None
    if len(secret) < SHORTEST:
        raise BadPersonal(
            f"{where} has {len(secret)} bytes.",
            expected=f"At least {SHORTEST} are expected.",
            state="Nothing was hashed.",
        )
    return derived_key(secret)


def make_personal_key(folder: Path, variables: Mapping[str, str]) -> None:
    """Have a key; the one that is there, if any."""
    if read_personal_key(folder, variables) is not None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):  # made by another process meanwhile
        descriptor = os.open(folder / FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_hex(KEY_BYTES).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
