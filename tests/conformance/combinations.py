"""Every combination of network, latents, likelihood and objective: which the config allows, and their checks."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from itertools import product

import pytest

from tests.conformance.suite import EROSION, TINY, images_for
from tests.conftest import HALVES
from vae_common.config import Config, LossConfig, NetworkConfig, TrainingConfig
from vae_common.config.parts import Objective, Reconstruction
from vae_common.config.registry import MODELS
from vae_common.conformance.checks import input_checks, state_checks
from vae_common.conformance.engine.checks import Check
from vae_common.conformance.lockstep import lockstep
from vae_common.conformance.operations import operation_checks
from vae_common.conformance.oracle import oracle_for
from vae_common.conformance.states import injected_states, training_data
from vae_common.errors import InputError

NETWORKS = {"mlp": (), "conv": (8, 6)}
# Few pixels: an importance weight is as exact as its logarithm, whose last place grows with the nats of the image.
SHAPE = (8, 4, 1)
STEPS = 20


def make(network: str, model: str, reconstruction: str, objective: str) -> Config:
    """The combination's config; InputError where it is refused."""
    samples = 1 if objective == "elbo" else 3
    return Config(
        model=model,
        image_shape=SHAPE,
        network=NetworkConfig(**TINY | {"channels": NETWORKS[network]}),
        loss=LossConfig(reconstruction=reconstruction, objective=objective, samples=samples),
        training=TrainingConfig(precision="float64", batch_size=9),
    )


def _allowed(combination: tuple[str, str, str, str]) -> bool:
    try:
        make(*combination)
        return True
    except InputError:
        return False


ALL = list(product(NETWORKS, MODELS, typing.get_args(Reconstruction), typing.get_args(Objective)))
ALLOWED = [combination for combination in ALL if _allowed(combination)]


def checks(config: Config) -> Iterator[Check]:
    """T0 to T3, and lockstep."""
    images = images_for(config)
    data = training_data(config, images)
    yield from input_checks(HALVES, config, data)
    yield from operation_checks(HALVES, config)
    for injected in injected_states(oracle_for(HALVES, config), config, data):
        yield from state_checks(HALVES, config, injected._replace(updates=False))
    yield from lockstep(HALVES, config, images, STEPS).checks()


def made_for(network: str):
    """The test of one kind of network: a file each, so that two processes share them."""

    @pytest.mark.parametrize("combination", [of for of in ALLOWED if of[0] == network], ids="-".join)
    def test(combination):
        found = list(checks(make(*combination)))
        assert {check.tier for check in found} == {"T0", "T1", "T2", "T3", "T5"}
        wrong = [check for check in found if not check.passed or check.ratio > EROSION]
        assert not wrong, sorted(wrong, key=lambda check: -check.ratio)[:5]

    return test
