"""A page to play with trained runs: their texts, their surprise, and what they look at."""
