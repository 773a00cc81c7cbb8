"""The domain classifier: can one tell the rows of two samples apart, and how much more often does each kind of row come
in the second than in the first?

Inputs come as codes (bins of numbers, places of categories), so that a logistic regression on them is additive in the
inputs and free in the shape of each. Its odds are the density ratio (Sugiyama, Suzuki and Kanamori, Density Ratio
Estimation in Machine Learning, 2012, section 4.2; Bickel, Brueckner and Scheffer 2007). Every row is judged by a fit
that has not seen it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seatrial.stats.metrics import roc_auc

Codes = NDArray[np.int32]
FITTED = 20_000
"""Rows of each sample that a fit looks at."""
RIDGE = 1.0
FOLDS = 2
CLOSE = 1e-4
"""A step that promises less than half of this in log likelihood is the last one."""
CELLS = 4_096
STRAY = 0.05
"""Share of the square of a gradient that may be left of it when a step is solved."""
LARGEST = 1000.0
"""A row counts as this many at most, before weights are brought to a mean of 1."""


@dataclass(frozen=True)
class Domain:
    """What the classifier found.

    auc: out of fold; 0.5 means that the samples cannot be told apart. error: its standard error (Hanley and McNeil
    1982). weights: (n,) of the first sample's rows, mean 1: with them it is like the second. effective: Kish's
    effective share of its rows, (sum w)^2 / (n sum w^2), in (0, 1].
    """

    auc: float
    error: float
    weights: NDArray[np.float64]

    @property
    def effective(self) -> float:
        return float(self.weights.sum() ** 2 / (self.weights.size * (self.weights**2).sum()))

    def moved(self, least: float) -> bool:
        """Whether the samples differ by an AUC of at least `least`, and beyond four standard errors."""
        return self.auc >= least and self.auc - 0.5 > 4 * self.error


def domain(first: Codes, second: Codes, widths: NDArray[np.int64], *, seed: int = 0) -> Domain:
    """Tell two samples of codes apart.

    first, second: (n, k) and (m, k), n, m >= 2; column j holds codes in [0, widths[j]). More than 20,000 rows of either
    are drawn at random for the fit.
    """
    random = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(widths)[:-1]]).astype(np.int64)
    size = int(widths.sum())
    codes = [sample.astype(np.int64) + offsets for sample in (first, second)]
    fold = [random.permutation(len(sample)) % FOLDS for sample in codes]
    odds = [np.zeros(len(sample)) for sample in codes]
    for number in range(FOLDS):
        parts = []
        for sample, of in zip(codes, fold, strict=True):
            places = np.flatnonzero(of != number)
            parts.append(sample[random.permutation(places)[: FITTED // 2]])
        target = np.concatenate([np.zeros(len(parts[0])), np.ones(len(parts[1]))])
        balance = np.where(target == 1, target.size / (2 * len(parts[1])), target.size / (2 * len(parts[0])))
        beta = logistic(np.concatenate(parts), size, target, balance)
        for sample, of, told in zip(codes, fold, odds, strict=True):
            out = of == number
            told[out] = beta[sample[out]].sum(axis=1) + beta[size]
    labels = np.concatenate([np.zeros(len(first)), np.ones(len(second))])
    auc = roc_auc(labels, np.concatenate(odds))
    weights = np.exp(np.clip(odds[0], -np.log(LARGEST), np.log(LARGEST)))
    return Domain(auc, auc_error(auc, len(first), len(second)), weights / weights.mean())


def logistic(codes: NDArray[np.int64], size: int, target: NDArray[np.float64], weights: NDArray[np.float64]) -> Vector:
    """(size + 1,) coefficients of each code and, last, the constant: the ridge maximum likelihood by Newton's method.

    codes: (n, k), each row has one code of each of k inputs. The steps are solved by conjugate gradients, so that no
    matrix of rows by codes is made, and roughly, for the next one mends the rest (Dembo, Eisenstat and Steihaug 1982).
    """
    beta = np.zeros(size + 1)
    ridge = np.append(np.full(size, RIDGE), 1e-9)
    by_input = np.ascontiguousarray(codes.T)
    crossed = _crossed(by_input)

    def times(direction: Vector) -> Vector:
        found: Vector = np.full(len(codes), direction[size])
        for cells, parts in crossed:
            told = direction[parts[0]]
            for part in parts[1:]:
                told = np.add.outer(told, direction[part])
            found += told.reshape(-1).take(cells)
        return found

    def back(of_rows: Vector) -> Vector:
        found = np.zeros(size + 1)
        for cells, parts in crossed:
            shape = tuple(part.stop - part.start for part in parts)
            counted = np.bincount(cells, weights=of_rows, minlength=int(np.prod(shape))).reshape(shape)
            for axis, part in enumerate(parts):
                found[part] = counted.sum(axis=tuple(other for other in range(len(parts)) if other != axis))
        found[size] = of_rows.sum()
        return found

    for _ in range(50):
        sure = 1 / (1 + np.exp(-np.clip(times(beta), -30, 30)))
        gradient = back(weights * (target - sure)) - ridge * beta
        spread = weights * sure * (1 - sure)
        diagonal = back(spread) + ridge
        step = np.zeros_like(beta)
        rest = gradient.copy()
        scaled = rest / diagonal
        direction, product = scaled.copy(), float(rest @ scaled)
        begun = product
        for _ in range(50):
            if product <= STRAY * begun:
                break
            curved = back(spread * times(direction)) + ridge * direction
            length = product / float(direction @ curved)
            step += length * direction
            rest -= length * curved
            scaled = rest / diagonal
            product, before = float(rest @ scaled), product
            direction = scaled + product / before * direction
        beta += step
        if float(gradient @ step) < CLOSE:
            break
    return beta


def _crossed(by_input: NDArray[np.int64]) -> list[tuple[NDArray[np.int64], list[slice]]]:
    """Inputs put together while they have at most CELLS combinations, so that rows are gone through less often: of each
    such group the combination (n,) in every row, and where the codes of its inputs lie."""
    found: list[tuple[NDArray[np.int64], list[slice]]] = []
    size = CELLS
    for codes in by_input:
        low, width = int(codes.min()), int(codes.max() - codes.min()) + 1
        part = slice(low, low + width)
        if size * width > CELLS:
            found.append((codes - low, [part]))
            size = width
        else:
            cells, parts = found.pop()
            found.append((cells * width + (codes - low), [*parts, part]))
            size *= width
    return found


Vector = NDArray[np.float64]


def auc_error(auc: float, negatives: int, positives: int) -> float:
    """The standard error of an area under the curve (Hanley and McNeil 1982, equation 1)."""
    one, other = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    spread = auc * (1 - auc) + (positives - 1) * (one - auc**2) + (negatives - 1) * (other - auc**2)
    return float(np.sqrt(max(spread, 0.0) / (positives * negatives)))
