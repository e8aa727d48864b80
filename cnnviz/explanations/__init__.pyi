"""The public names of this room, in one list."""

from .evidence_maps import Sign as Sign
from .evidence_maps import evidence as evidence
from .evidence_maps import input_pictures as input_pictures
from .explanation import JointExplanation as JointExplanation
from .inputs import shared as shared
from .prepare import Prepared as Prepared
