"""Inputs made for a model: ascent, parameterizations, robustness. Objectives belong to the room run."""
