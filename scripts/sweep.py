"""Trains every combination of some config fields' values; a table and a figure at the end."""

from vae_common.cli import sweep
from vae_common.cli.command_line import run_command

if __name__ == "__main__":
    run_command(sweep)
