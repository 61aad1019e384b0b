"""All tiers with each option of loss, optimizer and network that no other test turns on."""

import typing

import pytest

from tests.conformance.combinations import ALL, ALLOWED, make
from tests.conformance.suite import assert_conformant, images_for, tiny_config
from tests.conftest import HALVES
from vae_common.config.parts import Initializer, Schedule
from vae_common.conformance.lockstep import tier_checks
from vae_common.errors import InputError

OPTIONS = {
    "sampled KL, three draws": {"loss": {"kl": "sampled", "samples": 3}},
    "exact KL, three draws": {"loss": {"samples": 3}},
    "free bits": {"loss": {"free_bits": 0.1}},
    "KL warm-up": {"loss": {"kl_warmup": 30, "beta": 2.0}},
    "conditional": {"network": {"classes": 4}},
    "conditional IWAE": {"network": {"classes": 4}, "loss": {"objective": "iwae", "samples": 3}},
    "clipped, cosine, average": {
        "optimizer": {"clip_norm": 1.0, "schedule": "cosine", "decay_steps": 30, "average": 0.9}
    },
    "warm-up, exponential": {"optimizer": {"warmup_steps": 7, "schedule": "exponential", "decay_steps": 9}},
    "the IWAE code's Adam": {"optimizer": {"beta1": 0.99, "eps": 1e-4, "second_moment_start": 1.0}},
    "DReG, learned scale, sum": {
        "loss": {"objective": "dreg", "samples": 3, "reconstruction": "learned_gaussian", "reduction": "sum"}
    },
    "log-variance head": {"network": {"posterior_head": "log_variance"}},
    "Glorot, the data's mean": {"network": {"initializer": "glorot_uniform", "output_bias": "data_mean"}},
    "LeCun": {"network": {"initializer": "lecun_normal"}},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_option(name):
    config = tiny_config(options=OPTIONS[name])
    assert_conformant(tier_checks(HALVES, config, images_for(config), steps=20), "float64")


def test_every_choice_is_tried():
    tried = str(OPTIONS)
    for choice in (*typing.get_args(Schedule)[1:], *typing.get_args(Initializer)[1:]):
        assert choice in tried


def test_every_combination_is_allowed_or_refused_with_a_reason():
    """The list comes from the registry; of the models here, it is known what they refuse."""
    assert len(ALL) >= 4 * 7 * 3 * 2
    for combination in set(ALL) - set(ALLOWED):
        with pytest.raises(InputError, match=r"received .*, expected .*"):
            make(*combination)
    refused = {(model, objective) for _, model, name, objective in set(ALL) - set(ALLOWED) if name == "bernoulli"}
    assert {pair for pair in refused if pair[0] in ("ae", "vae", "two_layer_vae", "vq_vae")} == {
        ("ae", "iwae"),
        ("ae", "dreg"),
        ("vq_vae", "iwae"),
        ("vq_vae", "dreg"),
        ("two_layer_vae", "dreg"),
    }
