"""What CONTRIBUTING.md says, done in a copy of the project: each addition works, and a wrong half of it fails."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.configs import small_config
from tests.conftest import HALVES, ROOT
from vae_common.config.registry import MODELS, register
from vae_common.conformance import signatures
from vae_common.errors import InputError

TEXT = (ROOT / "CONTRIBUTING.md").read_text()
BLOCKS = re.findall(r"```python\n# ([\w/.]+), (new|at its end)\n(.*?)```", TEXT, re.S)
COMMAND = next(line for line in TEXT.splitlines() if line.startswith("python -m pytest tests/conformance/"))
IN_JAX, IN_TORCH = "jax_vae/models/sphere_ae.py", "torch_vae/models/sphere_ae.py"
LOCKSTEP = ("-m", "scripts.compare", "--models", "sphere_ae", "--check", "lockstep", "--epochs", "1")


def written(folder, blocks):
    """A copy of the project with these blocks."""
    for name in ("jax_vae", "torch_vae", "vae_common", "scripts", "tests", "results"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.png"))
    for name in ("pyproject.toml", "README.md", "CONTRIBUTING.md"):
        shutil.copy(ROOT / name, folder)
    for path, kind, code in blocks:
        assert (folder / path).exists() == (kind != "new"), path
        with open(folder / path, "a") as file:
            file.write(code if kind == "new" else f"\n\n{code}")
    return folder


THREE_LAYERS = '''"""Three stochastic layers, bottom-up. Twin: {twin}/models/three_layer_vae.py."""

from vae_common.contracts import StochasticLayer

from ..distributions import Gaussian, OfDraws
from ..layers import Autoencoder, Decoder, Dense, Encoder, reparameterize

DIMS = (3, 2)


class ThreeLayerVAE(Autoencoder):
    def __init__(self, config):
        super().__init__(config)
        self.encoder = Encoder(config, heads=("mean", "log_std"))
        self.decoder = Decoder(config)
        widths = config.network.latent_dim, *DIMS
        self.dims = widths
        for place in (1, 2):
            below, above = widths[place - 1], widths[place]
            setattr(self, f"up_{{place}}", Dense(config, (below, 5), {{"mean": above, "log_std": above}}))
            setattr(self, f"down_{{place}}", Dense(config, (above, 5), {{"mean": below, "log_std": below}}))

    def encode(self, images, labels=None):
        return self.gaussian(*self.encoder(images, labels))

    def given(self, place, above):
        return Gaussian(*self.gaussian(*getattr(self, f"down_{{place}}")(above)))

    def split(self, noise):
        first, second, _ = self.dims
        return noise[..., :first], noise[..., first : first + second], noise[..., first + second :]

    def generate(self, noise):
        lowest, middle, top = self.split(noise)
        return self.given(1, self.given(2, top).sample(middle)).sample(lowest)

    def {call}(self, images, noise, labels=None):
        posteriors, latents, noises = [self.encode(images, labels)], [], self.split(noise)
        latents.append(reparameterize(posteriors[0], noises[0]))
        for place in (1, 2):
            posteriors.append(self.gaussian(*getattr(self, f"up_{{place}}")(latents[-1])))
            latents.append(reparameterize(posteriors[-1], noises[place]))
        priors = [OfDraws(self.given(place, latents[place])) for place in (1, 2)] + [None]
        layers = tuple(StochasticLayer(*of) for of in zip(posteriors, priors, latents, noises))
        return self.outputs(latents[0], labels, layers=layers)
'''
THREE_LAYERS_LINE = """register(
    "three_layer_vae", "ThreeLayerVAE", layers=lambda config: ((config.network.latent_dim,), (3,), (2,)),
    exact_kl=False, standard_prior=False,
)
"""
THREE = [
    ("vae_common/config/registry.py", "at its end", THREE_LAYERS_LINE),
    ("jax_vae/models/three_layer_vae.py", "new", THREE_LAYERS.format(twin="torch_vae", call="__call__")),
    ("torch_vae/models/three_layer_vae.py", "new", THREE_LAYERS.format(twin="jax_vae", call="forward")),
]
"""A model with three stochastic layers: two files and an entry."""


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """The project with all that the page adds, and a model with three stochastic layers."""
    return written(tmp_path_factory.mktemp("all"), [*BLOCKS, *THREE])


@pytest.fixture
def alone(tmp_path):
    """The project with the model's entry, without its pair and its oracle."""
    (entry,) = (block for block in BLOCKS if "SphereFields" in block[2])
    return written(tmp_path, [entry])


def code_of(path):
    return next(code for place, _, code in BLOCKS if place == path)


def run(project, *command):
    environment = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # what is built here is compiled once, and small
    return subprocess.run(
        [sys.executable, *command], cwd=project, capture_output=True, text=True, check=False, env=environment
    )


def suite(project, *words):
    return run(project, "-m", "pytest", *words, "-x", "-n", "0", "-p", "no:cacheprovider")


def test_the_page_is_short():
    assert len(BLOCKS) == TEXT.count("```python")
    assert max(len(code.splitlines()) for _, _, code in BLOCKS) < 40


def test_the_command_is_of_files_that_are_there(alone):
    files = [word for word in COMMAND.split() if word.startswith("tests/")]
    assert all((alone / file).exists() for file in files)
    assert COMMAND.endswith("-k sphere_ae")


def test_the_models_pass_the_suite_and_a_wrong_half_fails(everything):
    right = suite(everything, "tests/conformance/test_tiers.py", "-k", "sphere_ae or laplace_vae or three_layer")
    assert right.returncode == 0, right.stdout[-3000:]
    assert "3 passed" in right.stdout
    assert "laplace_vae is unproven against the reference" in right.stdout
    assert "sphere_ae is unproven" not in right.stdout
    half = everything / IN_TORCH
    half.write_text(half.read_text().replace("+ 1e-6", "+ 2e-6"))
    wrong = suite(everything, "tests/conformance/test_tiers.py", "-k", "sphere_ae")
    half.write_text(half.read_text().replace("+ 2e-6", "+ 1e-6"))
    assert wrong.returncode == 1
    assert "torch against reference" in wrong.stdout


ADDED = """
from tests.conftest import HALVES, rendered
from tests.conformance.suite import assert_conformant, images_for, tiny_config
from vae_common.conformance.lockstep import tier_checks
config = tiny_config(options={"loss": {"objective": "capacity", "reconstruction": "laplace", "pull": 3.0}})
assert_conformant(tier_checks(HALVES, config, images_for(config), steps=5), "float64")
from vae_common.metrics.descriptors import METRICS, describe
import numpy as np
rng = np.random.default_rng(0)
found = describe(rng.random((30, 2)), None, np.zeros(30, int), rng.random((30, 2, 2, 1)))
assert 0.5 < found["largest_mean"] < 1, found
from vae_common.figures.of_models import FIGURES
assert list(FIGURES)[-1] == "originals"
from dataclasses import replace
from vae_common.data import datasets
from vae_common.config import Config
import pathlib
drawn = rendered({"JAX": HALVES["jax"]}, Config(model="sphere_ae"), datasets.load("digits"), pathlib.Path("figures"))
assert drawn["originals"].stat().st_size > 1000
"""


def test_objective_likelihood_metric_and_figure(everything):
    found = run(everything, "-c", ADDED)
    assert found.returncode == 0, found.stderr[-3000:]
    unknown = suite(everything, "tests/metrics/test_latents.py", "-k", "known_case or descriptors")
    assert unknown.returncode == 1  # the metric has no known case yet
    assert "largest_mean" in unknown.stdout


def test_the_field_is_the_models_own(everything):
    shown = run(everything, "-m", "scripts.train", "--model", "sphere_ae", "--help")
    assert "--radius" in shown.stdout
    assert "--components" not in shown.stdout
    refused = run(everything, "-m", "scripts.train", "--model", "vae", "--radius", "3", "--epochs", "0")
    assert refused.returncode == 2
    assert "radius: received 3.0, expected 1.0: model vae does not have it (sphere_ae)" in refused.stderr


def test_a_missing_twin_and_a_class_that_is_none(alone):
    (alone / IN_JAX).write_text(code_of(IN_JAX))
    missing = run(alone, "-c", "import torch_vae")
    assert "model sphere_ae: received no torch_vae/models/sphere_ae.py, expected the twin" in missing.stderr
    (alone / IN_TORCH).write_text("SphereAE = 3\n")
    none = run(alone, "-c", "import torch_vae")
    assert "model sphere_ae: received 3 as SphereAE of torch_vae/models/sphere_ae.py" in none.stderr


def test_a_public_surface_that_differs(alone):
    (alone / IN_JAX).write_text(code_of(IN_JAX))
    pictures = code_of(IN_TORCH).replace("encode(self, images, labels=None)", "encode(self, pictures, labels=None)")
    (alone / IN_TORCH).write_text(pictures)
    renamed = run(alone, *LOCKSTEP)
    assert renamed.returncode == 2
    (line,) = renamed.stderr.splitlines()
    assert "methods of SphereAE: received encode ['self', 'images'" in line
    assert "expected the same in both halves" in line
    (alone / IN_TORCH).write_text(code_of(IN_TORCH))
    (alone / IN_JAX).write_text(code_of(IN_JAX).replace('heads=("code",)', 'heads=("point",)'))
    layer = run(alone, *LOCKSTEP)
    (line,) = layer.stderr.splitlines()
    assert "model sphere_ae: parameters: received encoder.code.bias missing in jax" in line


@pytest.mark.parametrize(
    ("name", "class_name", "declared", "said"),
    [
        ("vae", "Mine", {}, "model name: received 'vae', expected a name that is not registered yet"),
        ("mine", "VAE", {}, "class name: received 'VAE', expected one that no registered model has"),
        ("my-vae", "Mine", {}, "model name: received 'my-vae'"),
        ("mine", "Mine", {"latents": "discrete"}, "model mine: declares: received 'latents', expected one of layers"),
    ],
)
def test_registrations_that_are_refused(name, class_name, declared, said):
    before = dict(MODELS)
    with pytest.raises(InputError, match=said):
        register(name, class_name, **declared)
    assert before == MODELS


@pytest.mark.parametrize("model", MODELS)
def test_registered_models_are_twins(model):
    signatures.require_same_signatures(HALVES, small_config(model))
