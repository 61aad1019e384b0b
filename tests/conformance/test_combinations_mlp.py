"""T0 to T3 and 20 float64 lockstep steps of every allowed combination with dense layers only."""

import jax
import pytest

from tests.conformance.combinations import ALLOWED, checks, make
from tests.conformance.suite import EROSION


@pytest.mark.parametrize("combination", [of for of in ALLOWED if of[0] == "mlp"], ids="-".join)
def test_combination(combination):
    jax.clear_caches()  # every test has programs of its own; see conftest.few_programs
    found, limit = list(checks(make(*combination))), EROSION if combination[3] == "elbo" else 1
    assert {check.tier for check in found} == {"T0", "T1", "T2", "T3", "T5"}
    # An importance-weighted gradient is a difference of the draws' gradients: it cancels, so its tolerance is used.
    wrong = [check for check in found if not check.passed or check.ratio > limit]
    assert not wrong, sorted(wrong, key=lambda check: -check.ratio)[:5]
