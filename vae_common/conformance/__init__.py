"""Whether two halves compute the same: T0 to T5 against an oracle. engine/ serves any pair of programs."""
