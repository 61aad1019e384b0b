"""Writes a run's kl_autoencoder as diffusers reads it."""

from vae_common.cli import export_model
from vae_common.cli.command_line import run_command

if __name__ == "__main__":
    run_command(export_model)
