"""The calls explain, evaluate and draw, and the answer they return. Pixels are made by renderers, not here."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
