"""The variational autoencoder with a learned prior. Twin: jax_vae/models/mixture_vae.py."""

from __future__ import annotations

from vae_common.config import Config
from vae_common.randomness import Start

from ..distributions import Mixture
from ..operations import parameter
from .vae import VAE


class MixtureVAE(VAE):
    """Gaussian posterior; the prior is a mixture of Gaussians whose parameters are learned (Tomczak and Welling 2018,
    section 4.1, "MoG")."""

    def __init__(self, config: Config):
        super().__init__(config)
        shape = config.network.components, config.network.latent_dim
        self.prior_logits = parameter(shape[:1], Start())
        self.prior_mean = parameter(shape, Start(deviation=1.0))  # apart: equal components would stay equal
        self.prior_log_std = parameter(shape, Start())

    def prior(self) -> Mixture:
        """Of `components` Gaussians."""
        return Mixture(self.prior_logits, self.prior_mean, self.prior_log_std)
