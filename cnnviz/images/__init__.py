"""Files and tensors: reading, preprocessing, resampling and writing pictures. Nothing here knows a model."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
