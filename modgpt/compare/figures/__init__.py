"""Figures of a comparison, described once in Vega-Lite: the page shows them, `--figures` writes them."""
