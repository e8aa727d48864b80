"""The public names of this room, in one list."""

from .baseline_contributions import along as along
from .baseline_contributions import compared as compared
from .baselines import Baseline as Baseline
from .baselines import Baselines as Baselines
from .baselines import backgrounds as backgrounds
from .baselines import baseline_input as baseline_input
from .captum_methods import from_captum as from_captum
from .conditional_scores import conditioned as conditioned
from .conditions import reads_at_once as reads_at_once
from .conditions import require as require
from .conditions import tell_if as tell_if
from .conditions import uploaded as uploaded
from .formula_error import FormulaError as FormulaError
from .layer_fusion import MapWarning as MapWarning
from .layer_fusion import layer_maps as layer_maps
from .mask_learning import learned_mask as learned_mask
from .passes import passes_at_most as passes_at_most
from .relevance import CONVOLUTIONS as CONVOLUTIONS
from .relevance import MATRIX_PRODUCTS as MATRIX_PRODUCTS
from .relevance import relevance_told as relevance_told
from .sample_points import Quadrature as Quadrature
from .sample_points import between as between
from .sample_points import noisy as noisy
from .sample_points import path as path
from .terms import bias_maps as bias_maps
from .terms import bias_share as bias_share
