"""Syntheses, a file for each procedure. Helpers that several of them share begin with an underscore."""
