"""What both halves share: configs, data, randomness, reference maths, metrics, runs, figures.

Nothing here imports JAX or PyTorch; `tests/test_isolation.py` proves it.
"""
