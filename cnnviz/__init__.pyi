"""The public names. They are listed here once, for type checkers and for the imports at first use."""

# verbs
# packages of further names
from . import datasets as datasets
from . import drawing as drawing
from . import explanations as explanations
from . import feature_visualization as feature_visualization
from . import formulas as formulas
from . import images as images
from . import models as models
from . import objectives as objectives
from . import targets as targets
from . import tasks as tasks
from . import testing as testing
from .datasets.run import batch as batch
from .datasets.stored.batch_view import open_batch as open_batch
from .drawing.comparison import grid as grid
from .engine.backward_rules import PLAIN as PLAIN

# rules
from .engine.backward_rules import Call as Call
from .engine.backward_rules import Rule as Rule
from .engine.backward_rules import rule as rule

# models that give nothing but scores
from .engine.black_box import black_box as black_box

# types
from .engine.layers import INPUT as INPUT
from .engine.layers import Layer as Layer
from .engine.layers import LayerAt as LayerAt
from .engine.operations import ACTIVATIONS as ACTIVATIONS
from .engine.operations import POINTWISE as POINTWISE
from .engine.operations import RECTIFIERS as RECTIFIERS
from .explanations.draw import draw as draw
from .explanations.evaluate import evaluate as evaluate
from .explanations.explain import explain as explain

# results
from .explanations.explanation import Explanation as Explanation

# protocols, and what their implementations are handed
from .explanations.metric_context import Trial as Trial
from .explanations.options import ExplainOptions as ExplainOptions
from .explanations.prepare import prepare as prepare
from .feature_visualization.ascent import Ascent as Ascent
from .feature_visualization.result import Synthesized as Synthesized
from .feature_visualization.synthesize import synthesize as synthesize

# formulas
from .formulas.attribution import Formula as Formula

# registration
from .formulas.attribution import attribution as attribution
from .formulas.expectation import over as over
from .formulas.expr import Expr as Expr
from .formulas.expr import lift as lift
from .formulas.parsing import parse_formula as parse_formula
from .formulas.terms import activation as activation
from .formulas.terms import at as at
from .formulas.terms import gradient as gradient
from .formulas.terms import image as image
from .formulas.terms import noted as noted
from .formulas.terms import prediction as prediction
from .formulas.terms import procedure as procedure
from .formulas.terms import score as score
from .formulas.terms import toward as toward
from .formulas.terms import upsample as upsample
from .images.preprocessing import Preprocessing as Preprocessing
from .models.loading import LoadedModel as LoadedModel
from .models.loading import load_model as load_model
from .registry.hooks import hookimpl as hookimpl
from .registry.protocols import Attribution as Attribution
from .registry.protocols import Backend as Backend
from .registry.protocols import Metric as Metric
from .registry.protocols import Renderer as Renderer
from .registry.protocols import Synthesis as Synthesis
from .registry.registry import PluginError as PluginError
from .registry.registry import attributions as attributions
from .registry.registry import backend as backend
from .registry.registry import backends as backends
from .registry.registry import metric as metric
from .registry.registry import metrics as metrics
from .registry.registry import renderer as renderer
from .registry.registry import renderers as renderers
from .registry.registry import syntheses as syntheses
from .registry.registry import synthesis as synthesis
from .run.run import Run as Run
from .run.targets import Target as Target
from .tasks.confusion_matrix import ConfusionMatrix as ConfusionMatrix
from .tasks.confusion_matrix import confusion_matrix as confusion_matrix
from .tasks.detection import detect as detect
from .tasks.object_segmentation import Segmentation as Segmentation
from .tasks.object_segmentation import segment as segment
from .tasks.top_activations import top_activations as top_activations
