"""Backends of batch runs: where their workers are."""
