"""Attributions, a file for each family of methods. Helpers that several of them share begin with an underscore."""
