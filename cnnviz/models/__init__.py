"""Networks by name, their weights, and the segmentation network. Nothing here runs a model or explains one."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
