"""What a step and an epoch cost in each half, against what they cannot go below."""
