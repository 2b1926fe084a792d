"""Reading runs: statistics, tables, figures and the report."""
