"""Sample ratio: does each arm get the share of traffic that it was given? A test that may be looked at all the time.

A split that is not what was wanted means that rows were lost or counted twice in one arm, and then no comparison of the
arms can be believed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from seatrial.core.errors import UsageError

CONCENTRATION = 1000.0
"""How near to the wanted split the alternative is: here a split that is off by 1 or 2 points is found soonest."""


class BadRatio(UsageError):
    """Counts and shares that do not belong together."""

    code = "stats.bad_ratio"


def log_evidence(counts: Sequence[int], shares: Sequence[float]) -> float:
    """The natural logarithm of the evidence against the wanted split: an e-value, which may be looked at at any time.

    With a sound split it ever exceeds log(1/alpha) with probability alpha at most, however often one looks.
    counts: rows by arm. shares: what each arm should get; they sum to 1, none is 0.
    A Bayes factor of a Dirichlet mixture around the wanted split: Lindon and Malek, Anytime-valid inference for
    multinomial count data, 2022. Raises BadRatio.
    """
    if len(counts) != len(shares) or min(counts, default=-1) < 0:
        raise BadRatio(f"{len(counts)} counts and {len(shares)} shares.", expected="One count, 0 or more, per share.")
    if min(shares) <= 0 or not math.isclose(sum(shares), 1, abs_tol=1e-9):
        raise BadRatio(f"the shares are {list(shares)}.", expected="Shares above 0 that sum to 1 are expected.")
    prior = [CONCENTRATION * share for share in shares]
    total = math.lgamma(CONCENTRATION) - math.lgamma(CONCENTRATION + sum(counts))
    for count, share, weight in zip(counts, shares, prior, strict=True):
        total += math.lgamma(weight + count) - math.lgamma(weight) - count * math.log(share)
    return total
