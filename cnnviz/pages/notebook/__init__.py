"""Answers as notebooks show them: HTML that needs nothing else, and reads well where styles are taken away."""
