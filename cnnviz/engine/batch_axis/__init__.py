"""A proof that the inputs of a batch do not change each other's outputs."""
