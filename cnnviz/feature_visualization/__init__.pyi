"""The public names of this room, in one list."""

from .parameterizations import Canvas as Canvas
from .parameterizations import FourierCanvas as FourierCanvas
from .parameterizations import FreeCanvas as FreeCanvas
from .parameterizations import PixelCanvas as PixelCanvas
from .transformation_robustness import RandomNumbers as RandomNumbers
from .transformation_robustness import Transformation as Transformation
from .transformation_robustness import composed as composed
from .transformation_robustness import jittered as jittered
from .transformation_robustness import middle as middle
from .transformation_robustness import padded as padded
from .transformation_robustness import robustness as robustness
from .transformation_robustness import rotated as rotated
from .transformation_robustness import scaled as scaled
