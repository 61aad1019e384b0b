"""One thin script per task: `python -m scripts.train --help`."""
