"""Measures both halves, each case in a fresh process, and draws it: python -m scripts.benchmark --suite quick"""

from vae_common.cli import benchmark
from vae_common.cli.command_line import run_command

if __name__ == "__main__":
    run_command(benchmark)
