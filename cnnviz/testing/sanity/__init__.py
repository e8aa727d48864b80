"""Sanity checks: which maps can be trusted for what, by figures and by rules that are the same for all methods."""
