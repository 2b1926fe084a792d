"""Configuration: composed, checked, prepared."""
