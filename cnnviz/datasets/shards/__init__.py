"""A shard: reading its items, explaining them, and the file that is committed once."""
