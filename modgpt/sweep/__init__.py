"""Sweeps: many runs, planned, launched and resumed."""
