"""Configs check themselves, survive JSON, and refuse what they do not know."""

import dataclasses

import pytest

from vae_common.config import PRESETS, Config, DataConfig, LossConfig, NetworkConfig, TrainingConfig
from vae_common.errors import InputError

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("config", PRESETS.values(), ids=PRESETS)
def test_json_round_trip(config):
    config = dataclasses.replace(config, seed=3, network=NetworkConfig(hidden=(5, 6)))
    assert Config.from_json(config.to_json()) == config
    assert hash(config) == hash(Config.from_json(config.to_json()))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: NetworkConfig(hidden=(0,)), "hidden: received (0,)"),
        (lambda: NetworkConfig(latent_dim=0), "latent_dim: received 0"),
        (lambda: NetworkConfig(activation="sine"), "one of relu"),
        (lambda: LossConfig(beta=-1.0), "beta: received -1.0"),
        (lambda: LossConfig(beta=float("nan")), "beta: received nan"),
        (lambda: TrainingConfig(learning_rate=0.0), "learning_rate"),
        (lambda: TrainingConfig(batch_size=True), "batch_size"),
        (lambda: DataConfig(binarization="half"), "binarization"),
        (lambda: Config(model="gan"), "one of ae, vae"),
        (lambda: Config(seed=-1), "seed"),
        (lambda: Config(image_shape=(28, 28)), "image_shape"),
        (lambda: Config.from_json({"modle": "vae"}), "unknown keys modle"),
        (lambda: Config.from_json({"network": {"width": 3}}), "network: unknown keys width"),
        (lambda: Config.from_json({"network": 3}), "network: received 3"),
    ],
)
def test_refused_in_one_line(make, said):
    with pytest.raises(InputError) as error:
        make()
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_records_say_what_the_reconstruction_is():
    grey = Config()
    assert "not a likelihood" in grey.reconstruction_unit
    assert "dynamic" in PRESETS["bernoulli50"].reconstruction_unit
    assert "squared error" in PRESETS["tutorial"].reconstruction_unit
