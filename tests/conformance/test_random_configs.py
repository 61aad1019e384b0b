"""Random small configurations, drawn by hypothesis: T0 to T4b and ten float64 lockstep steps on each."""

import typing
from dataclasses import replace

import hypothesis
from hypothesis import strategies as st

from tests.configs import own_fields
from tests.conformance.suite import assert_conformant, images_for
from tests.conftest import COMMON, HALVES
from vae_common.config import Config, DataConfig, LossConfig, NetworkConfig, TrainingConfig
from vae_common.config.parts import Initializer, PosteriorHead
from vae_common.conformance.lockstep import tier_checks
from vae_common.errors import InputError


def possible(**parts):
    """The config of these parts, or None where it refuses them."""
    try:
        loss, network = (
            LossConfig(**parts.pop("loss")),
            NetworkConfig(**own_fields(parts["model"], parts.pop("network"))),
        )
        return Config(loss=loss, network=network, **parts)
    except InputError:
        return None


CONFIGS = st.builds(
    possible,
    model=st.sampled_from(sorted(set(COMMON) - {"ladder_vae"})),  # which test_ladder.py has
    seed=st.integers(0, 2**40),
    image_shape=st.tuples(st.integers(1, 5), st.integers(1, 5), st.sampled_from([1, 3])),
    network=st.fixed_dictionaries(
        {
            "hidden": st.lists(st.integers(1, 9), max_size=3).map(tuple),
            "latent_dim": st.integers(1, 5),
            "activation": st.sampled_from(["relu", "tanh", "softplus", "gelu", "silu"]),
            "top_hidden": st.just((3,)),
            "top_dim": st.integers(1, 3),
            "codes": st.integers(2, 6),
            "classes": st.sampled_from([0, 3]),
            "initializer": st.sampled_from(typing.get_args(Initializer)),
            "posterior_head": st.sampled_from(typing.get_args(PosteriorHead)),
        }
    ),
    loss=st.fixed_dictionaries(
        {
            "reconstruction": st.sampled_from(["bernoulli", "squared_error"]),
            "beta": st.floats(0, 8),
            "kl": st.sampled_from(["gaussian", "tutorial"]),
            "reduction": st.sampled_from(["mean", "sum"]),
        }
    ),
    data=st.builds(DataConfig, binarization=st.sampled_from(["none", "threshold", "static", "dynamic"])),
    training=st.builds(
        TrainingConfig, precision=st.just("float64"), batch_size=st.integers(1, 8), learning_rate=st.floats(1e-5, 1e-2)
    ),
).filter(bool)


# What fails is not made smaller: each try compiles its own programs.
@hypothesis.settings(max_examples=4, deadline=None, derandomize=True, database=None, phases=[hypothesis.Phase.generate])
@hypothesis.given(CONFIGS)
def test_any_configuration(config):
    # One-pixel ReLU networks may have all-zero gradients; those compare exactly, and no parameter is unused for that.
    images = images_for(replace(config, image_shape=(6, 6, 8)), 40)[:, : config.image_shape[0], : config.image_shape[1]]
    images = images[..., : config.image_shape[2]]
    found = tier_checks(HALVES, config, images, steps=10)
    assert_conformant((check for check in found if not check.quantity.endswith(" is used")), "float64")
