"""Metrics, a file for each question about a map. Modules that several of them share begin with an underscore."""
