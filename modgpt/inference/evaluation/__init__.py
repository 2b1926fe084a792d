"""Validation loss by the length of the window, and by the position in it."""
