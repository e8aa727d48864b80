"""Explanations of whole data sets: planned in shards, computed by workers, stored, read back, and audited."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
