"""The halves never import each other, and vae_common imports neither framework."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT
from vae_common.cli.__main__ import COMMANDS, MODULES

SHARED = ", ".join(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "vae_common").rglob("*.py"))
    if path.stem not in ("__init__", "__main__")
)
TORCH, JAX = ("torch",), ("jax", "flax", "optax")


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys; print(*{{name.split('.')[0] for name in sys.modules}})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    return set(result.stdout.split())


@pytest.mark.parametrize(
    ("statement", "wanted", "forbidden"),
    [
        ("import jax_vae", "jax", (*TORCH, "torch_vae", "tensorflow", "tensorflow_datasets")),
        ("import torch_vae", "torch", (*JAX, "jax_vae", "tensorflow", "tensorflow_datasets")),
        (f"import {SHARED}", "numpy", (*TORCH, *JAX, "jax_vae", "torch_vae", "tensorflow", "tensorflow_datasets")),
        ("import scripts.train, scripts.compare, scripts.plot, scripts.tutorial", "tyro", (*TORCH, *JAX)),
    ],
)
def test_imports(statement, wanted, forbidden):
    modules = loaded_by(statement)
    assert wanted in modules
    assert not modules & set(forbidden)


HEAVY = {"matplotlib", "scipy", "sklearn", "jinja2", "PIL", "safetensors", *TORCH, *JAX}


@pytest.mark.parametrize("name", COMMANDS)
def test_flags_do_not_wait_for_the_work(name):
    """What `--help` loads: a command imports what only its work needs where it works."""
    module = MODULES.get(name, name)
    assert not loaded_by(f"import vae_common.cli.command_line, vae_common.cli.{module}") & HEAVY


@pytest.mark.parametrize("half", ["jax_vae", "torch_vae"])
def test_a_half_loads_what_models_need(half):
    """Figures, metrics, flags and sets are for those who use them."""
    assert not loaded_by(f"import {half}") & {"matplotlib", "sklearn", "jinja2", "tyro", "PIL"}


def test_decoded_cache_needs_no_tensorflow(tmp_path, small):
    from vae_common.data import datasets

    datasets._write_cache(datasets.cache_path("mnist", tmp_path), small)
    modules = loaded_by(f"from vae_common.data import datasets; datasets.load('mnist', data_dir={str(tmp_path)!r})")
    assert not modules & {"tensorflow", "tensorflow_datasets"}
