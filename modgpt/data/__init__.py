"""Texts, tasks and tokenizers, and the batches made of them."""
