"""The claims on one seed, step by step: true halves hold them, one false input each does not."""

import re

import pytest

from tests.configs import small_config
from tests.conftest import HALVES
from vae_common.comparison import lockstep
from vae_common.comparison.claims import failed
from vae_common.conformance.states import TrainingData

pytestmark = pytest.mark.quick


class Half:
    """The torch half with some of its functions replaced."""

    def __init__(self, **changes):
        self.changes = changes

    def __getattr__(self, name):
        return self.__dict__["changes"].get(name) or getattr(HALVES["torch"], name)


def trained_together(small, **changes):
    halves = {"jax": HALVES["jax"], "torch": Half(**changes)}
    return lockstep.claims_in_lockstep(halves, "vae", small_config(), TrainingData(small.train.images, None), 12)


def test_lockstep_claims_hold(small):
    (exact, rounded), drift = trained_together(small)
    assert (exact.verdict, rounded.verdict) == ("equal", "equivalent")
    assert exact.largest_difference["latents"] < 1e-10
    assert exact.share_of_tolerance < 0.3
    assert {len(values) for of in drift.values() for values in of.values()} == {12}
    assert max(drift["float32"]["total"]) > 1e3 * max(drift["float64"]["total"])


def test_lockstep_claims_that_are_false(small):
    """The KL alone, the weights alone, the epoch's loop alone, the encoder alone, and the float32 latents."""
    half = HALVES["torch"]

    def kl(state, images, noise, labels):
        state, terms = half.train_step(state, images, noise, labels)
        return state, terms._replace(kl=terms.kl * (1 + 1e-8))

    def weights(state):
        arrays = half.state_to_arrays(state)
        return arrays | {"decoder.logits.bias": arrays["decoder.logits.bias"] + 1e-9}

    def loop(state, images, draws, labels):
        return half.train_epoch(state, images, draws._replace(noise=draws.noise.flip(0)), labels)

    def encode(model, images, labels):
        posterior = half.encode(model, images, labels)
        return posterior._replace(mean=posterior.mean + 1e-6)

    for changes, said in (
        ({"train_step": kl}, "T4b: kl, cold: torch against reference"),
        ({"state_to_arrays": weights}, "T0: decoder.logits.bias, injected"),
        ({"train_epoch": loop}, "T5: .*by train_epoch: torch"),
        ({"encode": encode}, "L1: latents"),
    ):
        (exact, rounded), _ = trained_together(small, **changes)
        assert exact.verdict == "different", changes
        assert rounded.verdict == "equivalent"
        assert re.search(said, exact.culprit), exact.culprit
        assert failed([exact])

    def turned(model, images, labels):
        posterior = half.encode(model, images, labels)
        return posterior._replace(mean=posterior.mean[::-1].copy())

    (_, rounded), _ = trained_together(small, encode=turned)
    assert rounded.verdict == "different"
