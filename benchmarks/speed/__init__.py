"""How fast methods are beside their peers, how time and memory grow, and whether replayed scores are exact."""
