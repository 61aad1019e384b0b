"""What a trained model is worth on held-out images: bounds, likelihood, rate and distortion, latent structure."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from vae_common import files
from vae_common.backend import Half, name_of
from vae_common.data import pixels
from vae_common.data.seen import evaluated_by, seen_by
from vae_common.data.splits import Dataset
from vae_common.errors import InputError
from vae_common.metrics import descriptors
from vae_common.metrics.images import quality
from vae_common.progress import Progress
from vae_common.randomness import some_rows
from vae_common.runs import checkpoints
from vae_common.runs.folder import load_model

KIND = "evaluation"
MOST_SAMPLES = 1_000_000
MOST_COMPARED = 1000
"""Images whose reconstructions are compared."""


def evaluate(
    half: Half,
    checkpoint: checkpoints.Checkpoint,
    dataset: Dataset,
    samples: int = 5000,
    split: str = "test",
) -> dict[str, Any]:
    """Evaluates a checkpoint, whichever half wrote it, in the given half.

    Rate is the mean KL in nats (the exact one, where training had the tutorial's formula), distortion the mean
    reconstruction in its own unit (Alemi et al. 2018). Where the reconstruction is a likelihood and the model draws
    latents: `nll_nats`, its standard error over images, and the error that the draws leave in it. Elsewhere `nll_nats`
    is None and `nll_refused` says why; so with 0 `samples`. `psnr_db` and `ssim`, where nothing is binarized, are
    means over a thousand images. Of a stream bound, rate and distortion are of all images, the rest of a
    fixed draw of `drawn` ones.
    """
    config, model = checkpoint.config, load_model(half, checkpoint)
    seen, all_of_it = seen_by(config, dataset, split), evaluated_by(config, dataset, split)
    images, labels = seen.images, seen.labels
    own = dataset.splits[split].shown.labels
    true_kl = "gaussian" if config.loss.kl == "tutorial" else config.loss.kl
    asked = dataclasses.replace(config, loss=dataclasses.replace(config.loss, kl=true_kl))
    terms, has_rate = half.evaluate(model, all_of_it.images, asked, all_of_it.labels), config.entry.generates
    bound = float(np.mean(terms.reconstruction + terms.kl)) if config.is_likelihood and has_rate else None
    posterior = half.encode(model, images, labels)
    found: dict[str, Any] = {
        files.KIND: KIND,
        "framework": name_of(half),
        "model": config.model,
        "seed": config.seed,
        "epoch": checkpoint.epoch,
        "dataset": dataset.name,
        "data": dataset.fingerprint,
        "split": split,
        "images": len(all_of_it.images),
        "reconstruction_unit": config.reconstruction_unit,
        "is_likelihood": config.is_likelihood,
        "negative_elbo_nats": bound,
        "distortion": float(terms.reconstruction.mean()),
        "rate_nats": float(terms.kl.mean()) if has_rate else None,
        "latents": descriptors.describe(*posterior, own, images, config.entry.standard_prior),
        "samples": samples,
    }
    if checkpoint.terms is not None:  # the weights are of a later step than the epoch's last
        found["steps_of_the_next_epoch"] = len(checkpoint.terms.total)
    if len(images) < len(all_of_it.images):
        found["drawn"] = len(images)
    if config.data.binarization == "none":
        found |= _quality(half, model, images, labels)
    if config.entry.quantizes:
        found["codebook"] = codebook_use(half, model, images, labels, config.codes)
    return found | _likelihood(half, model, images, config, samples, labels)


def _quality(half: Half, model: Any, images: Any, labels: Any) -> dict[str, float | None]:
    """PSNR and SSIM of reconstructions, of no more than a fixed draw of the images."""
    rows = np.sort(some_rows(len(images), MOST_COMPARED))
    decoded = half.reconstruct(model, images[rows], None if labels is None else labels[rows])
    return quality(pixels.unit(images[rows]), decoded)


def _likelihood(half: Half, model: Any, images: Any, config: Any, samples: int, labels: Any) -> dict[str, Any]:
    try:
        config.require_marginal()
    except InputError as error:
        return {"nll_nats": None, "nll_refused": str(error)}
    if not samples:
        return {"nll_nats": None, "nll_refused": "samples: received 0"}
    with Progress(f"likelihood from {samples} samples", len(images), "image") as progress:
        marginal = half.log_marginal(model, images, config, samples, labels, progress.update)
    count = len(images)
    return {
        "nll_nats": float(-marginal.log_likelihood.mean()),
        "nll_standard_error": float(marginal.log_likelihood.std(ddof=1) / count**0.5) if count > 1 else None,
        "nll_monte_carlo_error": float((marginal.error**2).sum() ** 0.5 / count) if samples > 1 else None,
    }


def codebook_use(half: Half, model: Any, images: Any, labels: Any, codes: int) -> dict[str, Any]:
    """How many of a codebook's vectors the images use, and the perplexity (exponential of the entropy) of that use."""
    quantized = half.forward(model, images, np.zeros((len(images), 0)), labels).codes
    assert quantized is not None
    indices = quantized.indices
    share = np.bincount(indices.ravel(), minlength=codes) / indices.size
    used = share[share > 0]
    return {"codes": codes, "used": len(used), "perplexity": float(np.exp(-(used * np.log(used)).sum()))}
