"""The public names of this room, in one list."""

from .parameterizations import Canvas as Canvas
from .parameterizations import FourierCanvas as FourierCanvas
from .parameterizations import FreeCanvas as FreeCanvas
from .parameterizations import PixelCanvas as PixelCanvas
from .robustness import Transformation as Transformation
from .robustness import composed as composed
from .robustness import jittered as jittered
from .robustness import middle as middle
from .robustness import padded as padded
from .robustness import robustness as robustness
from .robustness import rotated as rotated
from .robustness import scaled as scaled
