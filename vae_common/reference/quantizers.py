"""Codes in float64 NumPy, for reference/model.py: a codebook's nearest vectors, or rounded numbers."""

from __future__ import annotations

import math
from typing import Any

import autograd.numpy as np
from autograd.tracer import getval
from scipy.special import ndtr

from vae_common.config import Config
from vae_common.config.registry import code_followers, code_shape
from vae_common.contracts import CODE_TERMS, Codes
from vae_common.randomness import Start
from vae_common.reference import networks
from vae_common.reference.networks import Weights


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Canonical name -> canonical shape of the parameters."""
    network = config.network
    _, width, codes = code_shape(config)
    if network.code_layout == "dense":
        found = networks.shapes(config)
    else:
        dense = ("encoder.code.", "decoder.grid.", "encoder.hidden.", "decoder.hidden.")
        found = {name: shape for name, shape in networks.shapes(config).items() if not name.startswith(dense)}
        deep = network.channels[-1]
        found |= {"encoder.code.weight": (width, deep, 1, 1), "encoder.code.bias": (width,)}
        found |= {"decoder.grid.weight": (deep, width, 1, 1), "decoder.grid.bias": (deep,)}
    if network.levels:
        return found
    found["codebook.weight"] = codes, width
    return found | ({"codebook_use": (codes,)} if code_followers(config) else {})


def starts(config: Config) -> dict[str, Start]:
    """At first every vector of a codebook counts as evenly used."""
    return {"codebook_use": Start(1.0)} if code_followers(config) else {}


def encoded(config: Config, weights: Weights, images: Any, labels: Any) -> Any:
    """What is replaced by codes, (batch, places * width)."""
    if config.network.code_layout == "dense":
        return networks.linear(weights, "encoder.code", networks.encoder(config, weights, images, labels))
    grid = networks.convolved(config, weights, images)
    return _pointwise(weights, "encoder.code", grid).reshape(len(images), -1)


def decoder(config: Config, weights: Weights, latents: Any, labels: Any) -> Any:
    """Logits of latents, flat or in their shape."""
    if config.network.code_layout == "dense":
        return networks.decoder(config, weights, latents, labels)
    grid = _pointwise(weights, "decoder.grid", latents.reshape(-1, *config.latent_shape))
    return networks.deconvolved(config, weights, grid)


def quantized(config: Config, weights: Weights, code: Any) -> Codes:
    """The codes of an encoder's output."""
    places, width, codes = code_shape(config)
    groups, nats = code.reshape(len(code), places, width), np.full(len(code), places * math.log(codes))
    levels = config.network.levels
    if levels:
        inside = np.stack([_within(groups[..., place], level) for place, level in enumerate(levels)], -1)
        below = np.array([level // 2 for level in levels])
        chosen = np.rint(getval(inside)).astype(int)
        indices = np.ravel_multi_index(tuple(np.moveaxis(chosen + below, -1, 0)), levels, order="F")
        inputs, vectors = ((each / below).reshape(code.shape) for each in (inside, chosen))
        return Codes(inputs, vectors, indices, nats, np.zeros(len(code)))
    book = weights["codebook.weight"]
    book = getval(book) if code_followers(config) else book
    far = np.linalg.norm(getval(groups)[:, :, None] - getval(book), axis=-1)
    indices = np.argmin(far, -1)
    vectors = book[indices].reshape(code.shape)
    penalty = config.loss.commitment * np.sum((code - getval(vectors)) ** 2, -1)
    if not code_followers(config):
        penalty = penalty + np.sum((getval(code) - vectors) ** 2, -1)
    return Codes(code, vectors, indices, nats, penalty)


def after(config: Config, weights: Weights, codes: Codes) -> dict[str, Any]:
    """What follows the batch, by name, after it: by sums and counts (van den Oord et al. 2017, appendix A.1)."""
    if not code_followers(config):
        return {}
    network, book = config.network, getval(weights["codebook.weight"])
    inputs, chosen = getval(codes.inputs).reshape(-1, book.shape[1]), np.asarray(codes.indices).ravel()
    even, decay = len(inputs) / len(book), network.codebook_decay
    counts = getval(weights["codebook_use"]) * even
    sums = counts[:, None] * book
    vectors, use = book.copy(), counts / even
    for code in range(len(book)):
        own = inputs[chosen == code]
        count = decay * counts[code] + (1 - decay) * len(own)
        if len(own):
            vectors[code] = (decay * sums[code] + (1 - decay) * own.sum(0)) / count
        use[code] = count / even
        if use[code] < network.restart_below:
            vectors[code], use[code] = inputs[code * len(inputs) // len(book)], 1.0
    return {"codebook.weight": vectors, "codebook_use": use}


def use_terms(config: Config, codes: Codes) -> dict[str, Any]:
    """How many codes a batch used, and the perplexity of that use."""
    _, counts = np.unique(codes.indices, return_counts=True)
    share = counts / codes.indices.size
    return dict(zip(CODE_TERMS, (float(len(counts)), float(np.prod(share**-share)))))


def uniform(config: Config, weights: Weights, noise: Any) -> Any:
    """Vectors drawn uniformly from all codes, made of standard-normal noise (N, places)."""
    levels, codes = config.network.levels, code_shape(config)[2]
    indices = np.floor(ndtr(noise) * codes).astype(int)
    if levels:
        digits = np.stack(np.unravel_index(indices, levels, order="F"), -1)
        below = np.array([level // 2 for level in levels])
        vectors = (digits - below) / below
    else:
        vectors = weights["codebook.weight"][indices]
    return vectors.reshape(len(noise), *config.latent_shape)


def _within(x: Any, level: int) -> Any:
    """Between the outermost of so many levels and a little more, a logistic function of x; 0 at 0."""
    span, off = (level - 1) * 1.001, 0.5 * (level % 2 == 0)
    shift = math.log((span / 2 + off) / (span / 2 - off))  # twice the artanh of off / (span / 2)
    return span / (1 + np.exp(-2 * x - shift)) - span / 2 - off


def _pointwise(weights: Weights, name: str, features: Any) -> Any:
    return features @ weights[f"{name}.weight"][:, :, 0, 0].T + weights[f"{name}.bias"]
