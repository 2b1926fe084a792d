"""One training, from a prepared job to its result."""
