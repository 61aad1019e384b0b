"""The statistics over seeds: known answers, and what they can and cannot see."""

import numpy as np
import pytest
from scipy import stats

from vae_common.conformance.engine.equivalence import energy_test, equivalence, smallest_p
from vae_common.errors import InputError

DRAW = np.random.default_rng(0)


def test_tost_against_a_worked_case():
    """Paired differences 0.1, 0.3, 0.2 on a mean of 100: mean 0.002, error 0.001 / sqrt(3), t(0.95, 2) = 2.920."""
    result = equivalence([100, 100, 100], [100.1, 100.3, 100.2], 0.01, paired=True)
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
    result, scale = equivalence(a, b, 0.02, paired=False), a.mean()
    expected = stats.ttest_ind(b / scale, a / scale, equal_var=False)
    np.testing.assert_allclose(result.interval, expected.confidence_interval(0.90), rtol=1e-12)
    sides = [
        stats.ttest_ind(b / scale + shift, a / scale, equal_var=False, alternative=side).pvalue
        for shift, side in ((0.02, "greater"), (-0.02, "less"))
    ]
    assert result.p == pytest.approx(max(sides), rel=1e-12)


@pytest.mark.parametrize(
    ("shift", "spread", "verdict"),
    [(0.0, 0.3, "equivalent"), (5.0, 0.3, "different"), (0.0, 20.0, "not decided"), (1.0, 0.3, "not decided")],
)
@pytest.mark.parametrize("paired", [True, False])
def test_verdicts(shift, spread, verdict, paired):
    """Few noisy seeds are `not decided`, never equal: that is what a test of difference would get wrong."""
    a = 100 + spread * DRAW.normal(size=12)
    b = 100 + shift + spread * DRAW.normal(size=12)
    assert equivalence(a, b, 0.01, paired=paired).verdict == verdict


def test_error_rates_and_power():
    """On the margin's edge 5 % pass; with equal means as many as the power says."""
    passed = {0.0: 0, 1.0: 0, 0.6: 0}
    powers = []
    for shift in passed:
        for _ in range(1000):
            a, b = 100 + 0.8 * DRAW.normal(size=8), 100 + shift + 0.8 * DRAW.normal(size=8)
            result = equivalence(a, b, 0.01, paired=False)
            passed[shift] += result.verdict == "equivalent"
            powers.append(result.power)
    assert 0.02 < passed[1.0] / 1000 < 0.08
    assert passed[0.0] / 1000 == pytest.approx(np.mean(powers), abs=0.12)
    assert passed[0.6] < passed[0.0]


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("seeds", [3, 6, 12])
def test_the_minimum_detectable_difference(seeds, paired):
    """A true difference of that size is found by a t test in 80 % of comparisons; it shrinks as seeds are added."""
    spread, count = 0.8, 4000
    a = 100 + spread * DRAW.normal(size=(count, seeds))
    b = 100 + spread * DRAW.normal(size=(count, seeds))
    error = spread * (2 / seeds) ** 0.5
    freedom = (1 if paired else 2) * (seeds - 1)
    reached = float(stats.t.ppf(0.975, freedom) + stats.t.ppf(0.8, freedom)) * error
    test = stats.ttest_rel if paired else stats.ttest_ind
    share = np.mean(test(b + reached, a, axis=1).pvalue < 0.05)
    assert 0.76 < share < 0.86  # the textbook's sum of two quantiles is not the noncentral t
    stated = [equivalence(x, y, 0.01, paired=paired) for x, y in zip(a[:300], b[:300])]
    middle = float(np.sqrt(np.mean([result.detectable**2 for result in stated]))) * 100
    assert middle == pytest.approx(reached, rel=0.12 if seeds > 3 else 0.25)  # Welch's degrees vary, too


def test_it_shrinks_while_the_old_one_grew():
    """What was called "found in 80 %" grew towards the margin, and could be below 0."""
    found = [
        equivalence(100 + DRAW.normal(size=n), 100 + DRAW.normal(size=n), 0.01, paired=False).detectable
        for n in (4, 16, 64, 256)
    ]
    assert found == sorted(found, reverse=True)
    assert all(value > 0 for value in found)


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("spread", [0.3, 0.8, 2.0])
def test_as_many_seeds_as_it_says_would_do(paired, spread):
    """With that many, truly equal halves are found equivalent in four of five comparisons, with fewer less often."""
    a, b = np.array([-1.0, 0, 1]) * spread, np.array([0, 1.0, -1]) * spread
    result = equivalence(100 + a, 100 + b, 0.01, paired=paired)
    deviation = (b - a).std(ddof=1) if paired else (a.var(ddof=1) + b.var(ddof=1)) ** 0.5
    needed = result.seeds_needed
    shares = []
    for seeds in (needed, max(2, needed // 2)):
        x = 100 + deviation / 2**0.5 * DRAW.normal(size=(600, seeds))
        y = 100 + deviation / 2**0.5 * DRAW.normal(size=(600, seeds))
        verdicts = [equivalence(p, q, 0.01, paired=paired).verdict for p, q in zip(x, y)]
        shares.append(np.mean([verdict == "equivalent" for verdict in verdicts]))
    assert shares[0] > 0.72
    assert needed <= 3 or shares[1] < 0.7


def test_no_number_of_seeds_would_do():
    result = equivalence([100.0, 300.0], [200.0, 90.0], 1e-6, paired=False)
    assert result.seeds_needed is None


def test_no_spread_at_all():
    same = equivalence([3.0, 3.0], [3.0, 3.0], 0.01, paired=True)
    assert (same.verdict, same.p) == ("equivalent", 0.0)
    assert equivalence([3.0, 3.0], [4.0, 4.0], 0.01, paired=False).verdict == "different"
    for bad in ([1.0], [1.0, np.nan]):
        with pytest.raises(InputError, match="at least 2 finite"):
            equivalence(bad, [1.0, 2.0], 0.01, paired=False)


def test_energy():
    rng = np.random.default_rng(2)

    def distances(points):
        return np.abs(points[:, None] - points[None])

    same = rng.normal(size=16)
    apart = np.concatenate([same[:8], same[8:] + 4])
    assert energy_test(distances(same), 8, rng)[1] > 0.01
    within = distances(np.array([0.0, 1.0, 10.0, 11.0, 12.0]))  # by hand: 2 * 10.5 - 1 - 4 / 3
    assert energy_test(within, 2, rng)[0] == pytest.approx(2 * 10.5 - 1 - 4 / 3)
    assert smallest_p(2, 2) == pytest.approx(1 / 3)
    assert energy_test(distances(np.array([0.0, 1, 50, 51])), 2, rng)[1] >= 0.3
    energy, p = energy_test(distances(apart), 8, rng)
    assert energy > 1
    assert p < 0.01
    with pytest.raises(InputError):
        energy_test(np.zeros((3, 3)), 2, rng)
