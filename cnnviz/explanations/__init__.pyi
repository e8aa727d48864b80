"""The public names of this room, in one list."""

from .evaluation import Evaluation as Evaluation
from .evidence_maps import Sign as Sign
from .evidence_maps import evidence as evidence
from .evidence_maps import input_pictures as input_pictures
from .explanation_set import ExplanationList as ExplanationList
from .explanation_set import Explanations as Explanations
from .inputs import shared as shared
from .joining import joined as joined
from .joint import JointExplanation as JointExplanation
from .prepare import Prepared as Prepared
from .score_curves import Curve as Curve
from .score_curves import curves as curves
from .similarity import SIMILARITIES as SIMILARITIES
from .similarity import map_similarity as map_similarity
from .similarity import tied_ranks as tied_ranks
