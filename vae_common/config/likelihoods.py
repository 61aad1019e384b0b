"""What is known of each likelihood beside its formula: one row for each.

The formulas are in both halves' `likelihoods.py` and in `vae_common/reference/likelihoods.py`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Likelihood:
    """The facts that configs, records and figures go by."""

    unit: str
    """What one unit of the reconstruction term is."""
    normalised: bool = True
    """Whether it is the negative logarithm of a probability or density that adds up to one."""
    binarized_unit: str | None = None
    """Its unit on binarized images, where it is normalised on those alone."""
    learns_scale: bool = False
    """Whether the decoder has a parameter for its scale."""
    takes_sigma: bool = False
    """Whether its scale is the config's `sigma`."""
    scale_of_each_image: bool = False
    """Whether its scale depends on the image: importance weights then mean nothing."""
    linear: bool = False
    """Whether the decoder's outputs are pixels in [-1, 1], and not logits."""
    eight_bit: bool = False
    """Whether it is of 8-bit pixels alone."""

    @property
    def own_fields(self) -> tuple[str, ...]:
        """The loss's fields that it has and not every likelihood."""
        return ("sigma",) if self.takes_sigma else ()


LIKELIHOODS: dict[str, Likelihood] = {
    "bernoulli": Likelihood(
        "cross-entropy on grey pixels (nats, not a likelihood)", normalised=False, binarized_unit="nats"
    ),
    "squared_error": Likelihood(
        "squared error (nats of a Gaussian with variance 1/2, less its constant)", normalised=False
    ),
    "gaussian": Likelihood("nats of a density on pixels in [0, 1], fixed sigma", takes_sigma=True),
    "learned_gaussian": Likelihood("nats of a density on pixels in [0, 1], learned sigma", learns_scale=True),
    "linear_gaussian": Likelihood("nats of a density on pixels in [0, 1], fixed sigma", takes_sigma=True, linear=True),
    "optimal_gaussian": Likelihood(
        "nats at each image's own best sigma (a bound on a density, not one)",
        normalised=False,
        scale_of_each_image=True,
    ),
    "continuous_bernoulli": Likelihood("nats of a density on pixels in [0, 1]"),
    "discretized_logistic": Likelihood("nats of the probability of 8-bit pixels", learns_scale=True, eight_bit=True),
}
