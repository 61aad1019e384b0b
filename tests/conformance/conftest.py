"""Fixtures of the conformance suite."""

import jax
import pytest

from vae_common import reference
from vae_common.config import Config


@pytest.fixture(scope="module")
def quickly_compiled():
    """JAX's programs of a whole file without LLVM's optimizations: a third less compiling.

    XLA's own are as ever. How a program is compiled is not in the key under which JAX keeps it in the process, so
    nothing is kept from before, or for what comes after.
    """
    jax.clear_caches()
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()


@pytest.fixture(scope="module")
def remembering_reference():
    """The reference computes the same batch of the same state once: every fault is looked for from the same states."""
    found, compute = {}, reference.terms_and_gradients

    def remembered(config: Config, weights, images, noise, labels=None, step=0):
        arrays = [*weights.values(), images, noise, *([] if labels is None else [labels])]
        key = config, step, *(array.tobytes() for array in arrays)
        if key not in found:
            found[key] = compute(config, weights, images, noise, labels, step)
        return found[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "terms_and_gradients", remembered)
        yield
