"""Attributions, a file for each family of methods. Modules that several of them share begin with an underscore."""
