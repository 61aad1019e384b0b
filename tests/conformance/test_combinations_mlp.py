"""T0 to T3 and 20 float64 lockstep steps of every allowed combination with dense layers only."""

from tests.conformance.combinations import made_for

test_combination = made_for("mlp")
