"""Draws every figure of a finished run, in either half, whoever trained it."""

from vae_common.cli import plot
from vae_common.cli.command_line import run_command

if __name__ == "__main__":
    run_command(plot)
