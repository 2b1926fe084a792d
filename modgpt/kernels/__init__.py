"""The same mathematics, faster on some device.

Each file has one kernel. It computes what a plain function computes, and takes the same arguments. Its
docstring gives the reason and the rule by which it is chosen; a test in tests/kernels holds its outputs
and gradients to the plain function. Nothing here knows a component.
"""
