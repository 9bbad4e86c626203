"""Many runs: sweeps, hyperparameter search, and tables of what they found."""
