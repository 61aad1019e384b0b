"""Trains one model in one half."""

from vae_common.cli import train
from vae_common.cli.command_line import run_command

if __name__ == "__main__":
    run_command(train)
