"""Fields belong to a model, an objective or a likelihood: given to another they are refused by name."""

import json

import pytest

from vae_common.cli.command_line import parse
from vae_common.cli.compare import Arguments as Compared
from vae_common.cli.train import Arguments
from vae_common.config import Config, LossConfig, NetworkConfig
from vae_common.config.experiment import same_but_for_model
from vae_common.config.objectives import OBJECTIVES
from vae_common.config.registry import MODELS
from vae_common.data import datasets
from vae_common.errors import InputError

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("model", "network", "loss", "said"),
    [
        ("vae", {"codes": 3}, {}, "codes: received 3, expected 64: model vae does not have it (vq_vae)"),
        ("vae", {"components": 3}, {}, "components: received 3, expected 10: model vae does not have it (mixture_vae)"),
        ("ae", {}, {"beta": 2.0}, "beta: received 2.0, expected 1.0: model ae does not have it (vae, two_layer_vae"),
        ("ae", {"posterior_head": "log_variance"}, {}, "posterior_head: received 'log_variance'"),
        ("vae", {}, {"commitment": 1.0}, "commitment: received 1.0, expected 0.25: model vae does not have it"),
        ("vae", {}, {"sigma": 0.5}, "sigma: received 0.5, expected 1.0: reconstruction bernoulli does not have it"),
        ("vae", {}, {"objective": "iwae", "beta": 2.0}, "beta: received 2.0, expected 1.0: objective iwae does not"),
        ("vae", {}, {"tc_weight": 2.0}, "tc_weight: received 2.0, expected 6.0: objective elbo does not have it"),
        ("vae", {}, {"objective": "beta_tc"}, "train_images 0', expected the number of training images"),
        ("two_layer_vae", {}, {"free_bits": 0.1}, "free_bits 0.1', expected 0: its KL is not known exactly"),
        ("mixture_vae", {}, {"kl": "tutorial"}, "kl tutorial', expected gaussian"),
        ("ae", {}, {"objective": "dreg"}, "objective dreg', expected elbo: nothing is drawn in it"),
    ],
)
def test_refused_by_name(model, network, loss, said):
    with pytest.raises(InputError) as error:
        Config(model, network=NetworkConfig(**network), loss=LossConfig(**loss))
    assert said in str(error.value)


def test_a_record_of_an_earlier_version_is_read_without_them():
    config = Config("ae")
    values = config.to_json()
    assert "beta" not in values["loss"]
    assert "codes" not in values["network"]
    values["loss"] |= {"beta": 4.0, "kl": "tutorial", "sigma": 0.5}
    values["network"] |= {"codes": 8, "top_dim": 3}
    assert Config.from_record(values) == config
    with pytest.raises(InputError, match="does not have it"):
        Config.from_json(values)


def test_another_model_keeps_what_both_have():
    quantized = Config(
        "vq_vae", network=NetworkConfig(hidden=(9,), codes=8), loss=LossConfig(reconstruction="gaussian", sigma=0.5)
    )
    plain = quantized.of_model("vae")
    assert (plain.network.hidden, plain.network.codes, plain.loss.sigma) == ((9,), 64, 0.5)
    assert same_but_for_model(quantized, plain)
    assert not same_but_for_model(quantized, Config("vae"))


def test_models_together_take_the_fields_of_any_of_them():
    flags = ["--models", "ae", "vq_vae", "--codes", "8", "--hidden", "9"]
    experiment = parse(Compared, flags).experiment
    dataset = datasets.load("digits")
    one, other = experiment.configs(["ae", "vq_vae"], dataset)
    assert (one.model, one.network.codes, other.network.codes) == ("ae", 64, 8)
    with pytest.raises(InputError, match="codes: received 8, expected 64: model ae does not have it"):
        experiment.configs(["ae", "vae"], dataset)


@pytest.mark.parametrize("model", MODELS)
def test_help_shows_a_models_own(model, capsys):
    with pytest.raises(SystemExit):
        parse(Arguments, ["--model", model, "--help"])
    shown = capsys.readouterr().out
    own = set(MODELS[model].own_fields) - set(OBJECTIVES["beta_tc"].own_fields)
    others = {name for entry in MODELS.values() for name in entry.own_fields} - own
    flags = {word.strip(",") for word in shown.split() if word.startswith("--")}
    assert {f"--{name.replace('_', '-')}" for name in own} <= flags
    assert not {f"--{name.replace('_', '-')}" for name in others} & flags


def test_the_size_of_the_set_is_part_of_an_objective_that_weighs_by_it():
    told = Config(loss=LossConfig(objective="beta_tc"), train_images=60)
    assert json.loads(json.dumps(told.to_json()))["train_images"] == 60
    assert Config(train_images=60) == Config()
