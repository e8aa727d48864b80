"""The calls explain, evaluate and draw, and the answer they return. Pixels are made by renderers, not here."""
