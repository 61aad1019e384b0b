"""The twins' conformance suite: every model of the registry, every tier, and faults planted to prove it."""
