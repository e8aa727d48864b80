"""Handing shards to worker processes, whatever backend starts them."""
