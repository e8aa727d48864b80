"""Renderers, a file for each kind of picture. What any renderer may need belongs to ``cnnviz.drawing``."""
