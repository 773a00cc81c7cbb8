"""Incidents: what happened around an alert, one line after the other?"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seatrial.monitoring.sample import Sample


def worst_prediction(sample: Sample) -> str:
    """The id of the prediction to look at first: the one furthest from its label, else the newest; empty: none."""
    import numpy as np

    if not sample.rows.num_rows:
        return ""
    off = np.abs(sample.scores() - sample.label_values())
    place = int(np.nanargmax(off)) if np.isfinite(off).any() else sample.rows.num_rows - 1
    return str(sample.rows["prediction_id"][place].as_py())
