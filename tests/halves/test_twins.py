"""The halves are twins: the same files, the same public names, the same signatures."""

import inspect
import re

import pytest

import jax_vae
import torch_vae
from tests.conftest import ROOT
from vae_common.backend import Half
from vae_common.config.registry import MODELS

pytestmark = pytest.mark.quick


ALONE = {"compiling.py", "recipe.py", "convolutions.py", "meshes.py", "engines.py", "graphs.py"}
"""Modules that one half has alone; docs/architecture.md says why."""


def files(half: str) -> set[str]:
    return {str(path.relative_to(ROOT / half)) for path in (ROOT / half).rglob("*.py")}


def parameters(value) -> list[tuple]:
    """Name, default and kind of each argument; an NNX class's own signature says (*args, **kwargs)."""
    signature = inspect.signature(value.__init__ if inspect.isclass(value) else value)
    return [(p.name, p.default, p.kind) for p in signature.parameters.values()]


def test_same_files():
    """But for the recipe of a PyTorch program that the benchmark measures against, PyTorch's engines and graphs, and
    JAX's own convolution, mesh and compiler's options."""
    assert files("jax_vae") - ALONE == files("torch_vae") - ALONE != set()


def test_same_public_names():
    assert jax_vae.__all__ == torch_vae.__all__
    assert set(jax_vae.__all__) >= {"AE", "VAE", "train_step", "encode", "evaluate"}


def test_every_module_defines_the_same_names_in_the_same_order():
    for name in files("jax_vae") - ALONE:
        definitions = [
            re.findall(r"^(?:def|class) ([A-Za-z]\w*)", (ROOT / half / name).read_text(), re.M)
            for half in ("jax_vae", "torch_vae")
        ]
        assert definitions[0] == definitions[1], name


@pytest.mark.parametrize("name", jax_vae.__all__)
def test_same_signatures(name):
    a, b = getattr(jax_vae, name), getattr(torch_vae, name)
    if name == "Autoencoder" or not callable(a):  # made by its subclasses only; tables
        return
    assert parameters(a) == parameters(b)
    assert (a.__doc__ is None) == (b.__doc__ is None)


OURS = ("ae", "vae", "two_layer_vae", "vq_vae", "mixture_vae", "kl_autoencoder", "ladder_vae")


@pytest.mark.parametrize("name", jax_vae.__all__)
def test_public_functions_are_annotated(name):
    for half in (jax_vae, torch_vae):
        value = getattr(half, name)
        if not inspect.isfunction(value):
            continue
        signature = inspect.signature(value)
        assert signature.return_annotation is not signature.empty
        assert all(p.annotation is not p.empty for p in signature.parameters.values()), (half.__name__, name)


def test_models_are_written_out():
    """Every model of this project is imported by name, so that editors and type checkers know it; one more need not."""
    for half in (jax_vae, torch_vae):
        assert {MODELS[name].class_name for name in OURS} <= set(half.__all__)


def test_halves_satisfy_the_protocol():
    """Names and arguments of `backend.Half`; mypy holds the types in scripts/typed_halves.py."""
    for half in (jax_vae, torch_vae):
        for name, member in vars(Half).items():
            if not inspect.isfunction(member) or name.startswith("_"):
                continue
            theirs = list(inspect.signature(getattr(half, name)).parameters.values())
            ours = list(inspect.signature(member).parameters.values())[1:]
            assert [(p.name, p.default, p.kind) for p in theirs] == [(p.name, p.default, p.kind) for p in ours], name


@pytest.mark.parametrize("name", ["AE", "VAE", "Autoencoder", "State"])
def test_same_methods(name):
    public = [
        {m for m in dir(getattr(half, name)) if m in vars(getattr(half, name)) and not m.startswith("_")}
        for half in (jax_vae, torch_vae)
    ]
    assert public[0] - {"forward"} == public[1] - {"forward"} != set()


def test_twins_name_each_other():
    for name in files("jax_vae") - ALONE:
        assert f"torch_vae/{name}" in (ROOT / "jax_vae" / name).read_text() or name == "__init__.py"
        assert f"jax_vae/{name}" in (ROOT / "torch_vae" / name).read_text() or name == "__init__.py"
