"""A search over hyperparameters."""
