"""One thin script per task: `python -m scripts.train --help`."""

import sys

from vae_common import stopping

if sys.argv[0] == "-m":  # a script is about to be run: from now on a signal ends it with one line, imports included
    stopping.install()
