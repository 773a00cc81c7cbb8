import numpy as np
import pytest

from seatrial.stats.spending import BadLooks, boundaries, spent


def test_the_bounds_are_those_that_were_published():
    # R package gsDesign, sfLDOF at alpha 0.025 one-sided and five equal looks, as in its documentation; ldbounds agrees
    assert boundaries([0.2, 0.4, 0.6, 0.8, 1.0], alpha=0.025) == pytest.approx(
        [4.877, 3.357, 2.680, 2.290, 2.031], abs=5e-4
    )
    assert boundaries([0.5, 1.0], alpha=0.025) == pytest.approx([2.9626, 1.9686], abs=2e-4)


def test_one_look_is_the_ordinary_test():
    assert boundaries([1.0], alpha=0.05) == pytest.approx([1.644854], abs=1e-6)


def test_all_of_the_error_is_spent_at_the_end_and_nearly_none_at_the_start():
    assert spent(0.025, 1.0) == pytest.approx(0.025)
    assert spent(0.025, 0.1) < 1e-10


def test_a_random_walk_crosses_as_often_as_was_stated():
    looks = np.array([0.1, 0.3, 0.35, 0.7, 1.0])
    bounds = boundaries(looks, alpha=0.05)
    random = np.random.default_rng(1)
    walks = (random.normal(size=(200_000, looks.size)) * np.sqrt(np.diff(looks, prepend=0))).cumsum(axis=1)
    crossed = (walks / np.sqrt(looks) > bounds).any(axis=1).mean()
    assert crossed == pytest.approx(0.05, abs=0.002)


@pytest.mark.parametrize("looks", [[], [0.0, 1.0], [0.5, 0.5, 1.0], [0.6, 0.4, 1.0], [0.2, 0.8]])
def test_looks_that_do_not_rise_to_the_whole_are_refused(looks):
    with pytest.raises(BadLooks):
        boundaries(looks, alpha=0.05)
