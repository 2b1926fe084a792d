"""Many trainings: what came of them, compared."""
