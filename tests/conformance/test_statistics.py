"""The statistics over seeds: known answers, and what they can and cannot see."""

import numpy as np
import pytest
from scipy import stats

from vae_common import comparison
from vae_common.configs import InputError

DRAW = np.random.default_rng(0)


def test_tost_against_a_worked_case():
    """Paired differences 0.1, 0.3, 0.2 on a mean of 100: mean 0.002, error 0.001 / sqrt(3), t(0.95, 2) = 2.920."""
    result = comparison.equivalence([100, 100, 100], [100.1, 100.3, 100.2], 0.01, paired=True)
    assert result.difference == pytest.approx(0.002)
    np.testing.assert_allclose(
        result.interval, [0.002 - 2.92 * 0.001 / 3**0.5, 0.002 + 2.92 * 0.001 / 3**0.5], rtol=1e-3
    )
    assert result.verdict == "equivalent"
    t = (0.01 - 0.002) / (0.001 / 3**0.5)  # the nearer edge; Student's t with 2 degrees has a closed form
    assert result.p == pytest.approx(0.5 * (1 - t / (2 + t**2) ** 0.5))


def test_tost_is_scipys():
    """Independent groups of unequal spread: Welch's interval, and the larger one-sided p."""
    a, b = 100 + DRAW.normal(size=9), 100.2 + 3 * DRAW.normal(size=14)
    result, scale = comparison.equivalence(a, b, 0.02, paired=False), a.mean()
    expected = stats.ttest_ind(b / scale, a / scale, equal_var=False)
    np.testing.assert_allclose(result.interval, expected.confidence_interval(0.90), rtol=1e-12)
    sides = [
        stats.ttest_ind(b / scale + shift, a / scale, equal_var=False, alternative=side).pvalue
        for shift, side in ((0.02, "greater"), (-0.02, "less"))
    ]
    assert result.p == pytest.approx(max(sides), rel=1e-12)


@pytest.mark.parametrize(
    ("shift", "spread", "verdict"),
    [(0.0, 0.3, "equivalent"), (5.0, 0.3, "different"), (0.0, 20.0, "not shown"), (1.0, 0.3, "not shown")],
)
@pytest.mark.parametrize("paired", [True, False])
def test_verdicts(shift, spread, verdict, paired):
    """Few noisy seeds are `not shown`, never equal: that is what a test of difference would get wrong."""
    a = 100 + spread * DRAW.normal(size=12)
    b = 100 + shift + spread * DRAW.normal(size=12)
    assert comparison.equivalence(a, b, 0.01, paired=paired).verdict == verdict


def test_error_rates_and_power():
    """On the margin's edge 5 % pass; with equal means as many as the power says."""
    passed = {0.0: 0, 1.0: 0, 0.6: 0}
    powers, found = [], []
    for shift in passed:
        for _ in range(1000):
            a, b = 100 + 0.8 * DRAW.normal(size=8), 100 + shift + 0.8 * DRAW.normal(size=8)
            result = comparison.equivalence(a, b, 0.01, paired=False)
            passed[shift] += result.verdict == "equivalent"
            powers.append(result.power)
            found.append(result.detects)
    assert 0.02 < passed[1.0] / 1000 < 0.08
    assert passed[0.0] / 1000 == pytest.approx(np.mean(powers), abs=0.12)
    assert np.median(found) == pytest.approx(0.006, abs=0.0015)
    assert passed[0.6] / 1000 == pytest.approx(0.2, abs=0.08)


def test_no_spread_at_all():
    same = comparison.equivalence([3.0, 3.0], [3.0, 3.0], 0.01, paired=True)
    assert (same.verdict, same.p) == ("equivalent", 0.0)
    assert comparison.equivalence([3.0, 3.0], [4.0, 4.0], 0.01, paired=False).verdict == "different"
    for bad in ([1.0], [1.0, np.nan]):
        with pytest.raises(InputError, match="at least 2 finite"):
            comparison.equivalence(bad, [1.0, 2.0], 0.01, paired=False)


def test_energy():
    def distances(points):
        return np.abs(points[:, None] - points[None])

    same = DRAW.normal(size=16)
    apart = np.concatenate([same[:8], same[8:] + 4])
    assert comparison.energy_test(distances(same), 8)[1] > 0.01
    within = distances(np.array([0.0, 1.0, 10.0, 11.0, 12.0]))  # by hand: 2 * 10.5 - 1 - 4 / 3
    assert comparison.energy_test(within, 2)[0] == pytest.approx(2 * 10.5 - 1 - 4 / 3)
    assert comparison.smallest_p(2, 2) == pytest.approx(1 / 3)
    assert comparison.energy_test(distances(np.array([0.0, 1, 50, 51])), 2)[1] >= 0.3
    energy, p = comparison.energy_test(distances(apart), 8)
    assert energy > 1
    assert p < 0.01
    with pytest.raises(InputError):
        comparison.energy_test(np.zeros((3, 3)), 2)
