"""Metrics, a file for each question put to a map. Helpers that several of them share begin with an underscore."""
