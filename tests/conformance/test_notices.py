"""The suite notices what nothing uses, and what is declared and not so."""

from dataclasses import replace

import numpy as np
import pytest

import jax_vae
import torch_vae
from tests.conformance.covering import OPTIONS, ROWS
from tests.conformance.planting import forget_programs
from tests.conformance.suite import EROSION, eroded, images_for, tiny_config
from tests.conftest import HALVES
from vae_common import randomness, reference
from vae_common.config.objectives import OBJECTIVES
from vae_common.config.registry import MODELS
from vae_common.conformance.checks import capability_checks, state_checks, use_checks
from vae_common.conformance.engine.checks import Check
from vae_common.conformance.engine.faults import patched
from vae_common.conformance.oracle import oracle_for
from vae_common.conformance.states import injected_states, training_data
from vae_common.contracts import Posterior, StochasticLayer
from vae_common.errors import InputError
from vae_common.reference import objectives as reference_objectives


def test_a_dead_prior_is_noticed(half):
    """A prior that is declared and never given to the losses: its parameters have no gradient, its layer is N(0, I)."""
    config = tiny_config("mixture_vae")
    data, oracle = training_data(config, images_for(config)), oracle_for(HALVES, config)
    moving, found = {}, []
    with patched([(half.models.CLASSES["MixtureVAE"], "prior", lambda self: None)]):
        forget_programs(half)
        for injected in injected_states(oracle, config, data):
            found += state_checks(
                {half.__name__.removesuffix("_vae"): half}, config, injected._replace(updates=False), moving
            )
        found += capability_checks({half.__name__: half}, config, injected)
        found += use_checks(moving, config, oracle.shapes)
    forget_programs(half)
    said = {check.quantity for check in found if not check.passed}
    assert {f"prior_{name} is used" for name in ("logits", "mean", "log_std")} <= said
    assert "a prior of its own of what is decoded" in said
    assert "encoder.mean.weight is used" not in said


@pytest.mark.parametrize("change", ["no layer", "two layers", "codes"])
def test_what_is_declared_is_given(half, change):
    config = tiny_config()
    injected = next(injected_states(oracle_for(HALVES, config), config, training_data(config, images_for(config))))
    original = half.forward

    class Other:
        def __getattr__(self, name):
            return getattr(half, name)

        def forward(self, *given):
            outputs = original(*given)
            changed = {
                "no layer": {"layers": ()},
                "two layers": {"layers": outputs.layers * 2},
                "codes": {"codes": outputs.logits},
            }
            return outputs._replace(**changed[change])

    found = list(capability_checks({"other": Other()}, config, injected))
    assert [check for check in found if not check.passed]
    assert all(check.passed for check in capability_checks({"right": half}, config, injected))


@pytest.mark.parametrize("model", ["vae", "mixture_vae"])
def test_a_kl_that_is_not_as_declared(half, model, monkeypatch):
    config = tiny_config(model)
    injected = next(injected_states(oracle_for(HALVES, config), config, training_data(config, images_for(config))))
    assert all(check.passed for check in capability_checks({"right": half}, config, injected))
    entry = MODELS[model]
    monkeypatch.setitem(MODELS, model, replace(entry, exact_kl=not entry.exact_kl))
    failed = [check.quantity for check in capability_checks({"wrong": half}, config, injected) if not check.passed]
    assert failed == ["a KL that is exact" if model == "mixture_vae" else "a KL that is estimated"]


def test_a_parameter_without_a_start_is_refused():
    with pytest.raises(InputError, match=r"parameter prior.scale: received no start, expected one: make it with"):
        randomness.initial_weights({"prior.scale": (2,)}, 0)
    start = {"prior.scale": randomness.Start(mean=3.0, deviation=0.5)}
    drawn = randomness.initial_weights({"prior.scale": (4000,)}, 0, starts=start)["prior.scale"]
    assert abs(drawn.mean() - 3) < 0.05
    assert abs(drawn.std() - 0.5) < 0.05


def test_objectives_are_in_every_table():
    """One that is missing somewhere would raise there; none is taken for another."""
    for table in (jax_vae.objectives.OBJECTIVES, torch_vae.objectives.OBJECTIVES, reference_objectives.OBJECTIVES):
        assert set(table) == set(OBJECTIVES)


def test_every_objective_and_model_is_tried():
    for name, values in (("objective", OBJECTIVES), ("model", MODELS)):
        assert set(OPTIONS[name]) == set(values)
        assert {row[name] for row in ROWS} == set(values)


def test_named_terms_are_those_that_are_declared(half):
    for model, options in (("vae", {"loss": {"objective": "beta_tc"}}), ("two_layer_vae", {})):
        config = tiny_config(model, options=options)
        _, terms = half.gradients(half.create_state(config), *batch(config))
        assert set(terms.named()) == set(config.term_names)


def batch(config):
    rng = np.random.default_rng(0)
    return rng.random((9, *config.image_shape)), rng.standard_normal((9, config.noise_dim))


def test_erosion_is_said_in_shares():
    worn = Check("T3", "encoder.mean.weight", "warm: jax against reference", 0.49, 1.0)
    assert eroded([worn], "float64") == [
        f"T3: encoder.mean.weight, warm: jax against reference uses 0.49 of its tolerance, {EROSION} allowed"
    ]
    alone = Check("T3", "encoder.mean.weight", "extreme: jax against torch", 0.49, 1.0)
    assert eroded([alone], "float64") == []  # nobody else is there to be held against
    assert eroded([alone, worn], "float64")
    assert eroded([worn], "float32") == []


def test_exact_and_estimated_kl_agree(half):
    """The exact KL of a Gaussian prior with parameters is what the draws estimate."""
    rng = np.random.default_rng(0)
    mean, log_std = rng.normal(size=(1, 3)), rng.normal(size=(1, 3)) * 0.3
    put = lambda a: half.to_device(a, half.select_device("cpu"))  # noqa: E731
    with half.precision("float64"):
        prior = half.distributions.Gaussian(*(put(a) for a in rng.normal(size=(2, 3)) * 0.4))
        noise = rng.standard_normal((200_000, 3))
        latents = mean + np.exp(log_std) * noise
        posterior = Posterior(put(np.repeat(mean, len(noise), 0)), put(np.repeat(log_std, len(noise), 0)))
        layer = StochasticLayer(posterior, prior, put(latents), put(noise))
        estimate = half.to_numpy(half.losses.log_posterior(layer) - half.losses.log_prior(layer))
        exact = half.to_numpy(half.losses.exact_kls(layer).sum(-1))
    assert abs(estimate.mean() - exact[0]) < 4 * estimate.std() / len(noise) ** 0.5
    normal = reference.model.Normal(half.to_numpy(prior.mean), half.to_numpy(prior.log_std))
    np.testing.assert_allclose(exact[0], normal.exact_kls(Posterior(mean, log_std)).sum(), rtol=1e-12)


def test_a_mixture_is_a_density_and_its_samples_follow_it(half):
    """In one dimension: it integrates to one, and the share of samples below a place is its integral up to there."""
    put = lambda a: half.to_device(np.asarray(a, np.float64), half.select_device("cpu"))  # noqa: E731
    with half.precision("float64"):
        mixture = half.distributions.Mixture(
            put([0.3, -0.5, 1.0]), put([[-2.0], [0.5], [3.0]]), put([[-0.5], [0.2], [-1.0]])
        )
        places = np.linspace(-15, 15, 60_001)
        density = np.exp(half.to_numpy(mixture.log_density(put(places[:, None]))))
        drawn = half.to_numpy(mixture.sample(put(np.random.default_rng(0).standard_normal((100_000, 2)))))[:, 0]
    below = np.cumsum(density) * (places[1] - places[0])
    assert below[-1] == pytest.approx(1, abs=1e-9)
    for place in (-2.0, 0.0, 2.5):
        assert (drawn < place).mean() == pytest.approx(np.interp(place, places, below), abs=0.006)
