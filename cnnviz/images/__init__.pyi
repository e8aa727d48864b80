"""The public names of this room, in one list."""

from .annotations import Annotations as Annotations
from .annotations import read_annotations as read_annotations
from .annotations import read_mask as read_mask
from .bounds import Bounds as Bounds
from .limits import pixel_limit as pixel_limit
from .resampling import blurred as blurred
from .resampling import resize as resize
from .told import InputWarning as InputWarning
