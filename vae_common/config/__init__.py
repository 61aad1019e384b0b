"""The experiment's configuration: what decides every number of a run, declared once and read by both halves."""

from vae_common.config.experiment import Config
from vae_common.config.parts import DataConfig, LossConfig, NetworkConfig, OptimizerConfig, TrainingConfig
from vae_common.config.presets import PRESETS

__all__ = [
    "PRESETS",
    "Config",
    "DataConfig",
    "LossConfig",
    "NetworkConfig",
    "OptimizerConfig",
    "TrainingConfig",
]
