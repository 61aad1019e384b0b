"""What a trained model is worth on held-out images: bounds, likelihood, rate and distortion, latent structure."""

from __future__ import annotations

import dataclasses
from types import ModuleType
from typing import Any

import numpy as np

from vae_common import checkpoints, datasets, files, latents, runs
from vae_common.configs import InputError
from vae_common.progress import Progress
from vae_common.registry import MODELS

KIND = "evaluation"
MOST_DRAWS = 1_000_000


def evaluate(
    half: ModuleType,
    checkpoint: checkpoints.Checkpoint,
    dataset: datasets.Dataset,
    draws: int = 5000,
    split: str = "test",
) -> dict[str, Any]:
    """Evaluates a checkpoint, whichever half wrote it, in the given half.

    Rate is the mean KL in nats (the exact one, where training had the tutorial's formula), distortion the mean
    reconstruction in its own unit (Alemi et al. 2018). Where the reconstruction is a likelihood and the model draws
    latents: `nll_nats`, its standard error over images, and the error that the draws leave in it. Elsewhere `nll_nats`
    is None and `nll_refused` says why; so with 0 `draws`.
    """
    config, model = checkpoint.config, runs.load_model(half, checkpoint)
    _, images = datasets.evaluation_images(dataset, config.data.binarization, split)
    own = getattr(dataset, split).labels
    labels = datasets.labels_for(getattr(dataset, split), config)
    true_kl = "gaussian" if config.loss.kl == "tutorial" else config.loss.kl
    asked = dataclasses.replace(config, loss=dataclasses.replace(config.loss, kl=true_kl))
    terms, has_rate = half.evaluate(model, images, asked, labels), MODELS[config.model].latents != "none"
    bound = float(np.mean(terms.reconstruction + terms.kl)) if config.is_likelihood and has_rate else None
    posterior = half.encode(model, images, labels)
    found: dict[str, Any] = {
        files.KIND: KIND,
        "framework": half.__name__.removesuffix("_vae"),
        "model": config.model,
        "seed": config.seed,
        "epoch": checkpoint.epoch,
        "dataset": dataset.name,
        "data": dataset.fingerprint,
        "split": split,
        "images": len(images),
        "reconstruction_unit": config.reconstruction_unit,
        "is_likelihood": config.is_likelihood,
        "negative_elbo_nats": bound,
        "distortion": float(terms.reconstruction.mean()),
        "rate_nats": float(terms.kl.mean()) if has_rate else None,
        "latents": latents.describe(posterior.mean, posterior.log_std, own, images),
        "draws": draws,
    }
    if MODELS[config.model].latents == "quantized":
        found["codebook"] = codebook_use(half, model, images, labels, config.network.codes)
    return found | _likelihood(half, model, images, config, draws, labels)


def _likelihood(half: ModuleType, model: Any, images: Any, config: Any, draws: int, labels: Any) -> dict[str, Any]:
    try:
        config.require_marginal()
    except InputError as error:
        return {"nll_nats": None, "nll_refused": str(error)}
    if not draws:
        return {"nll_nats": None, "nll_refused": "draws: received 0"}
    with Progress(f"likelihood from {draws} draws", len(images), "image") as progress:
        marginal = half.log_marginal(model, images, config, draws, labels, progress.update)
    count = len(images)
    return {
        "nll_nats": float(-marginal.log_likelihood.mean()),
        "nll_standard_error": float(marginal.log_likelihood.std(ddof=1) / count**0.5) if count > 1 else None,
        "nll_monte_carlo_error": float((marginal.error**2).sum() ** 0.5 / count) if draws > 1 else None,
    }


def codebook_use(half: ModuleType, model: Any, images: Any, labels: Any, codes: int) -> dict[str, Any]:
    """How many of a codebook's vectors the images use, and the perplexity (exponential of the entropy) of that use."""
    indices = half.forward(model, images, np.zeros((len(images), 0)), labels).codes.indices
    share = np.bincount(indices.ravel(), minlength=codes) / indices.size
    used = share[share > 0]
    return {"codes": codes, "used": len(used), "perplexity": float(np.exp(-(used * np.log(used)).sum()))}
