"""Evaluates a run's checkpoint: ELBO, importance-weighted likelihood, rate, distortion, latent structure."""

from vae_common.cli import evaluate
from vae_common.cli.command_line import run_command

if __name__ == "__main__":
    run_command(evaluate)
