"""Named experiments that flags start from: published ones, and the tutorial."""

from __future__ import annotations

from vae_common.config.experiment import Config
from vae_common.config.parts import DataConfig, LossConfig, NetworkConfig, OptimizerConfig, TrainingConfig

PRESETS: dict[str, Config] = {
    "default": Config(),
    # The tutorial as its text describes it, its own KL formula included.
    "tutorial": Config(
        loss=LossConfig(reconstruction="squared_error", kl="tutorial", reduction="sum"),
        data=DataConfig(dataset="mnist"),
    ),
    # The MNIST experiment of d3p's paper logs: test negative ELBO 99.63, standard deviation 0.30.
    "bernoulli50": Config(
        network=NetworkConfig(hidden=(400,), latent_dim=50, activation="softplus"),
        data=DataConfig(dataset="mnist", binarization="dynamic"),
    ),
    # Flax's own VAE example, on 50,000 images: test negative ELBO 119.74, 103.60, 101.83 after 1, 10, 20 epochs.
    "flax_example": Config(
        network=NetworkConfig(hidden=(500,), latent_dim=20, initializer="lecun_normal", posterior_head="log_variance"),
        data=DataConfig(dataset="mnist", binarization="static", validation_size=10_000),
    ),
    # Burda et al. 2016, one stochastic layer (scripts.paper_table has its schedule).
    "iwae": Config(
        network=NetworkConfig(
            hidden=(200, 200), latent_dim=50, activation="tanh", initializer="glorot_uniform", output_bias="data_mean"
        ),
        loss=LossConfig(objective="iwae", samples=5, reduction="sum"),
        data=DataConfig(dataset="mnist", binarization="dynamic", validation_size=400),
        training=TrainingConfig(batch_size=20),
        optimizer=OptimizerConfig(eps=1e-4),
    ),
    # --model ladder_vae, of five layers unless --ladder-layers says otherwise; 468 steps an epoch.
    "ladder": Config(
        network=NetworkConfig(hidden=(512,), latent_dim=16, activation="silu", output_bias="data_mean"),
        loss=LossConfig(kl_warmup=6 * 468),
        data=DataConfig(dataset="mnist", binarization="dynamic"),
        training=TrainingConfig(epochs=60),
        optimizer=OptimizerConfig(
            schedule="cosine", decay_steps=60 * 468, warmup_steps=200, clip_norm=200.0, average=0.998
        ),
    ),
}
