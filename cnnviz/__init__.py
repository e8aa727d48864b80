"""See why a convolutional network decided what it did.

The public names are listed in the stub beside this file, by group; the rest is in ``cnnviz.objectives``,
``cnnviz.formulas``, ``cnnviz.drawing`` and other rooms. Names are imported when first used, so that ``import cnnviz``
costs nothing.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
