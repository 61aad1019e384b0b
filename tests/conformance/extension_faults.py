"""Faults in the learned prior and in the decomposed KL, each with the tier that has to notice it (see faults.py)."""

from __future__ import annotations

import math

from tests.conformance.planting import Fault

MIXTURE = {"model": "mixture_vae"}
BETA_TC = {"options": {"loss": {"objective": "beta_tc"}}}


def density(change):
    """Another log density of the mixture: `change(mixture, latents, functions)`."""

    def plant(half, f):
        mixture = half.distributions.Mixture
        return [(mixture, "log_density", lambda self, latents: change(self, latents, f))]

    return plant


def gaussians(mixture, latents, f):
    """log N of each component, (..., components)."""
    apart = (latents[..., None, :] - mixture.mean) / f.exp(mixture.log_std)
    return (-(apart**2) / 2 - mixture.log_std - math.log(2 * math.pi) / 2).sum(-1)


def mixed(logs, f):
    most = f.detach(logs).max()
    return f.log(f.exp(logs - most).sum(-1)) + most


def shares(mixture, f):
    return mixture.logits - mixed(mixture.logits[None], f)


def detached(mixture, latents, f):
    held = type(mixture)(*(f.detach(parameter) for parameter in mixture))
    return mixed(gaussians(held, latents, f) + shares(held, f), f)


def variance_for_sigma(mixture, latents, f):
    return mixed(gaussians(mixture._replace(log_std=2 * mixture.log_std), latents, f) + shares(mixture, f), f)


def other_component(half, f):
    mixture = half.distributions.Mixture
    original = mixture.sample
    return [(mixture, "sample", lambda self, noise: original(self, noise) + 0 * noise[:, 1:] + self.mean[0] * 1e-6)]


def replaced(change):
    """Another beta-TC: `change(minimised, batch, functions)` of what the right one gives."""

    def plant(half, f):
        table = half.objectives.OBJECTIVES
        original = table["beta_tc"]
        return [(table, "beta_tc", lambda batch: change(original(batch), batch, f))]

    return plant


def off(found, name, by):
    """One of the terms moved, the value with it."""
    return found._replace(terms={**found.terms, name: found.terms[name] + by}, value=found.value + by)


def swapped(found, batch, f):
    one, other = "mutual_information_nats", "total_correlation_nats"
    return found._replace(terms={**found.terms, one: found.terms[other], other: found.terms[one]})


def without_prior(found, batch, f):
    (layer,) = batch.outputs.layers
    densities = (-(layer.latents**2) / 2 - math.log(2 * math.pi) / 2).sum(-1)
    return off(found, "dimension_wise_kl_nats", densities.mean())


def without_set_size(found, batch, f):
    """The logarithm of the training set's size is once in the joint density, and once in each of three latents'."""
    size = math.log(60)
    return off(off(found, "mutual_information_nats", -size), "total_correlation_nats", -2 * size)


def weight_forgotten(found, batch, f):
    return found._replace(value=found.value - 5 * found.terms["total_correlation_nats"])


def not_followed(found, batch, f):
    correlation = found.terms["total_correlation_nats"]
    return found._replace(differentiated=found.value - 6 * (correlation - f.detach(correlation)))


EXTENSION_FAULTS = [
    Fault(
        "mixture's shares not normalised",
        "T2",
        density(lambda m, z, f: mixed(gaussians(m, z, f) + m.logits, f)),
        MIXTURE,
        both=True,
    ),
    Fault("mixture of logarithms", "T2", density(lambda m, z, f: gaussians(m, z, f).mean(-1)), MIXTURE),
    Fault("mixture's variance for sigma", "T2", density(variance_for_sigma), MIXTURE),
    Fault("no gradient to the prior", "T3", density(detached), MIXTURE, both=True),
    Fault("samples beside the mixture", "T2", other_component, MIXTURE),
    Fault("beta-TC without the set's size", "T2", replaced(without_set_size), BETA_TC, both=True),
    Fault("beta-TC's terms swapped", "T2", replaced(swapped), BETA_TC),
    Fault("beta-TC's weight forgotten", "T2", replaced(weight_forgotten), BETA_TC),
    Fault("beta-TC without its prior", "T2", replaced(without_prior), BETA_TC),
    Fault("no gradient through the total correlation", "T3", replaced(not_followed), BETA_TC, both=True),
]
