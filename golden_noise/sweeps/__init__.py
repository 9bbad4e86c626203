"""Many runs: sweeps, hyperparameter search, and tables of their results."""
