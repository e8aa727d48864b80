"""The public names of this room, in one list."""

from .evidence import Sign as Sign
from .evidence import evidence as evidence
from .evidence import input_pictures as input_pictures
