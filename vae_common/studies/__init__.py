"""Many runs with one question: sweeps, the IWAE paper's table."""
