"""Planning: the memory, time and communication of a training before it runs."""
