"""Trains both halves (or takes finished runs) and lays them side by side in a report."""

from vae_common.cli import compare
from vae_common.cli.command_line import run_command

if __name__ == "__main__":
    run_command(compare)
