"""The statistics over seeds: known answers, and what they can and cannot see."""

import numpy as np
import pytest

from tests.conftest import HALVES, small_config
from vae_common import claims, comparison
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
    passed = {0.0: 0, 1.0: 0}
    powers = []
    for shift in passed:
        for _ in range(1000):
            a, b = 100 + 0.8 * DRAW.normal(size=8), 100 + shift + 0.8 * DRAW.normal(size=8)
            result = comparison.equivalence(a, b, 0.01, paired=False)
            passed[shift] += result.verdict == "equivalent"
            powers.append(result.power)
    assert 0.02 < passed[1.0] / 1000 < 0.08
    assert passed[0.0] / 1000 == pytest.approx(np.mean(powers), abs=0.12)


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
    energy, p = comparison.energy_test(distances(apart), 8)
    assert energy > 1
    assert p < 0.01
    with pytest.raises(InputError):
        comparison.energy_test(np.zeros((3, 3)), 2)


def losses(kl=5.0, count=12, spread=0.01):
    return [
        {"total_nats": 150 + k, "reconstruction_nats": 145.0 * (1 + spread * e), "kl_nats": k}
        for k, e in ((kl * (1 + spread * DRAW.normal()), DRAW.normal()) for _ in range(count))
    ]


def test_a_wrong_kl_passes_on_the_total_and_fails_on_the_kl():
    """A doubled KL weight moves the total by less than its spread and the KL by a quarter."""
    found = claims.independent(
        "vae", {"jax": losses(), "torch": losses(kl=3.75)}, {"jax": [], "torch": []}, DRAW.normal(size=(24, 60, 2))
    )
    verdicts = {claim["claim"]: claim["verdict"] for claim in found}
    assert verdicts["independent seeds, KL"] == "different"
    assert claims.failed(found)


def test_an_inflated_spread_does_not_widen_the_margin():
    wild = losses(spread=0.3)
    found = claims.independent(
        "vae", {"jax": losses(), "torch": wild}, {"jax": [], "torch": []}, DRAW.normal(size=(24, 60, 2))
    )
    assert {claim["verdict"] for claim in found[:3]} == {"not shown"}


def test_an_autoencoder_makes_no_claim_on_a_kl():
    zero = [{"total_nats": 100.0 + i, "reconstruction_nats": 100.0 + i, "kl_nats": 0.0} for i in range(3)]
    assert [claim["claim"] for claim in claims.paired("ae", {"jax": zero, "torch": zero})] == [
        "paired seeds, total",
        "paired seeds, reconstruction",
    ]


def test_paired_halves_are_equivalent_and_a_fault_is_not(small):
    """S1 in small: three seeds in float32."""
    found = {}
    for name, half in HALVES.items():
        runs = []
        for seed in range(3):
            config = small_config(seed=seed, dtype="float32")
            state = half.fit(half.create_state(config), small)
            terms = half.evaluate(state.model, small.test.images, config)
            runs.append({f"{term}_nats": values.mean() for term, values in terms._asdict().items()})
        found[name] = runs
    assert not claims.failed(claims.paired("vae", found))
    wrong = [run | {"kl_nats": 1.1 * run["kl_nats"]} for run in found["torch"]]
    (claim,) = claims.failed(claims.paired("vae", {"jax": found["jax"], "torch": wrong}))
    assert claim["claim"] == "paired seeds, KL"


def test_lockstep_claim(small):
    claim, drift = claims.lockstep(HALVES, "vae", small_config(), small.train.images, 12)
    assert claim["verdict"] == "equal"
    assert claim["numbers"]["largest difference, latents"] < 1e-10
    assert {len(values) for of in drift.values() for values in of.values()} == {12}
    assert max(drift["float32"]["total"]) > 1e3 * max(drift["float64"]["total"])
