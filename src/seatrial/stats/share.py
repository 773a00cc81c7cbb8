"""What is known of a share that was counted once."""

from __future__ import annotations

from statistics import NormalDist


def share_interval(hits: int, rows: int, *, alpha: float) -> tuple[float, float]:
    """Bounds of a share of which `hits` of `rows` > 0 were seen, wrong with a chance of about `alpha` (Wilson 1927,
    Journal of the American Statistical Association 22)."""
    share, deviate = hits / rows, NormalDist().inv_cdf(1 - alpha / 2)
    centre = share + deviate**2 / (2 * rows)
    half = deviate * ((share * (1 - share) + deviate**2 / (4 * rows)) / rows) ** 0.5
    scale = 1 + deviate**2 / rows
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)
