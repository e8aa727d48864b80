"""Which maps can be trusted for what: every attribution beside maps that know nothing of the network."""
