"""Comparison of runs: statistics, tables, figures and the report."""
