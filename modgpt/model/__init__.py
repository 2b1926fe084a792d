"""The modular GPT and its parts."""
