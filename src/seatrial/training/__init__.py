"""Training set to run: split, fit, evaluation, gates."""
