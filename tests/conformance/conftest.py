"""Fixtures of the conformance suite."""

import pytest

from vae_common import reference
from vae_common.config import Config


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
