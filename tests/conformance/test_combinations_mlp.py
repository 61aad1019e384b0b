"""T0 to T3 and 20 float64 lockstep steps of every allowed combination with dense layers only."""

from tests.conformance.combinations import test_of

test_combination = test_of("mlp")
