"""The table of latent metrics: what each says, and what it may differ by between two programs.

A metric of one set of latents is a function in descriptors.py, with its row there; one between two sets is a function
in similarity.py, with its row here. The row is all that reports, records and claims go by.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Margin:
    """What the means over seeds of a metric may differ by."""

    relative: bool
    """To the first half's mean."""
    size: float | None = None
    """None takes it from the standard deviation between seeds."""


@dataclass(frozen=True)
class Metric:
    """What is known of a metric beside its formula."""

    says: str
    """What its values mean, in a line."""
    title: str
    """Its name where people read it."""
    margin: Margin | None = None
    """Of a metric of one set; one between two sets has none."""


METRICS: dict[str, Metric] = {
    "linear_cka": Metric("1: the same up to rotation and scale; 0: unrelated", "linear CKA"),
    "procrustes_disparity": Metric(
        "0: the same up to rotation and scale; 1: nothing in common", "procrustes disparity"
    ),
    "rsa": Metric("1: the same distances between images, in order; 0: unrelated", "RSA"),
    "mutual_neighbours": Metric("share of each image's 10 nearest that are nearest in both", "mutual neighbours"),
    "axis_correlation": Metric("1: the same axes, in any order and sign; not blind to rotation", "axis correlation"),
}
"""By name; descriptors.py adds its own."""


def title(key: str) -> str:
    """A metric's or a term's key as a person reads it."""
    if key in METRICS:
        return METRICS[key].title
    words = key.removesuffix("_nats").split("_")
    return " ".join({"kl": "KL", "kls": "KLs"}.get(word, word) for word in words)
