"""The tutorial from end to end, with its own preset: AE and VAE, trained and drawn."""

from vae_common.cli import tutorial
from vae_common.cli.command_line import run_command

if __name__ == "__main__":
    run_command(tutorial)
