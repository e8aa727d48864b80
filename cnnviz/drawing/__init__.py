"""The toolkit of renderers: arrays, intensity scales, text, montages, figures. Nothing here asks a model.

Its public names are listed here; like those of ``cnnviz`` they are imported when first used."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
