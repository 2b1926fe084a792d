"""A catalogue of runs: what was tried, with what result, asked in flags or SQL."""
