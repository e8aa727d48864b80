"""See why a convolutional network decided what it did.

Everything public is here. Names are imported when first used, so that ``import cnnviz`` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnviz.lazy_names import lazy_names

if TYPE_CHECKING:
    from cnnviz.drawing.comparison import grid as grid
    from cnnviz.engine.backward_rules import PLAIN as PLAIN
    from cnnviz.engine.backward_rules import Call as Call
    from cnnviz.engine.backward_rules import Rule as Rule
    from cnnviz.engine.backward_rules import rule as rule
    from cnnviz.engine.feature_extraction import Seen as Seen
    from cnnviz.engine.layers import INPUT as INPUT
    from cnnviz.engine.layers import Layer as Layer
    from cnnviz.engine.operations import ACTIVATIONS as ACTIVATIONS
    from cnnviz.engine.operations import POINTWISE as POINTWISE
    from cnnviz.engine.operations import RECTIFIERS as RECTIFIERS
    from cnnviz.explanations.draw import draw as draw
    from cnnviz.explanations.evaluate import evaluate as evaluate
    from cnnviz.explanations.evidence import Sign as Sign
    from cnnviz.explanations.evidence import evidence as evidence
    from cnnviz.explanations.evidence import input_pictures as input_pictures
    from cnnviz.explanations.explain import explain as explain
    from cnnviz.explanations.explanation import Explanation as Explanation
    from cnnviz.explanations.metric_context import Trial as Trial
    from cnnviz.explanations.options import ExplainOptions as ExplainOptions
    from cnnviz.feature_visualization.ascent import Ascent as Ascent
    from cnnviz.feature_visualization.parameterizations import Canvas as Canvas
    from cnnviz.feature_visualization.parameterizations import FourierCanvas as FourierCanvas
    from cnnviz.feature_visualization.parameterizations import FreeCanvas as FreeCanvas
    from cnnviz.feature_visualization.parameterizations import PixelCanvas as PixelCanvas
    from cnnviz.feature_visualization.result import Synthesized as Synthesized
    from cnnviz.feature_visualization.robustness import Transformation as Transformation
    from cnnviz.feature_visualization.robustness import composed as composed
    from cnnviz.feature_visualization.robustness import jittered as jittered
    from cnnviz.feature_visualization.robustness import middle as middle
    from cnnviz.feature_visualization.robustness import padded as padded
    from cnnviz.feature_visualization.robustness import robustness as robustness
    from cnnviz.feature_visualization.robustness import rotated as rotated
    from cnnviz.feature_visualization.robustness import scaled as scaled
    from cnnviz.feature_visualization.synthesize import synthesize as synthesize
    from cnnviz.formulas.attribution import Formula as Formula
    from cnnviz.formulas.attribution import attribution as attribution
    from cnnviz.formulas.baseline_contributions import along as along
    from cnnviz.formulas.baseline_contributions import compared as compared
    from cnnviz.formulas.baselines import Baseline as Baseline
    from cnnviz.formulas.baselines import Baselines as Baselines
    from cnnviz.formulas.baselines import backgrounds as backgrounds
    from cnnviz.formulas.baselines import baseline_input as baseline_input
    from cnnviz.formulas.expectation import over as over
    from cnnviz.formulas.expr import Expr as Expr
    from cnnviz.formulas.expr import lift as lift
    from cnnviz.formulas.learned_mask import learned_mask as learned_mask
    from cnnviz.formulas.sample_points import Quadrature as Quadrature
    from cnnviz.formulas.sample_points import between as between
    from cnnviz.formulas.sample_points import noisy as noisy
    from cnnviz.formulas.sample_points import path as path
    from cnnviz.formulas.terms import activation as activation
    from cnnviz.formulas.terms import at as at
    from cnnviz.formulas.terms import bias_maps as bias_maps
    from cnnviz.formulas.terms import bias_share as bias_share
    from cnnviz.formulas.terms import gradient as gradient
    from cnnviz.formulas.terms import image as image
    from cnnviz.formulas.terms import noted as noted
    from cnnviz.formulas.terms import prediction as prediction
    from cnnviz.formulas.terms import procedure as procedure
    from cnnviz.formulas.terms import score as score
    from cnnviz.formulas.terms import toward as toward
    from cnnviz.formulas.terms import upsample as upsample
    from cnnviz.images.annotations import Annotations as Annotations
    from cnnviz.images.annotations import read_annotations as read_annotations
    from cnnviz.images.annotations import read_mask as read_mask
    from cnnviz.images.bounds import Bounds as Bounds
    from cnnviz.images.preprocessing import Preprocessing as Preprocessing
    from cnnviz.images.resampling import blurred as blurred
    from cnnviz.images.resampling import resize as resize
    from cnnviz.models.loading import LoadedModel as LoadedModel
    from cnnviz.models.loading import load_model as load_model
    from cnnviz.models.segmentation_net import SegmentationNet as SegmentationNet
    from cnnviz.models.segmentation_net import intersection_over_union as intersection_over_union
    from cnnviz.registry.protocols import Attribution as Attribution
    from cnnviz.registry.protocols import Metric as Metric
    from cnnviz.registry.protocols import Renderer as Renderer
    from cnnviz.registry.protocols import Synthesis as Synthesis
    from cnnviz.registry.registry import PluginError as PluginError
    from cnnviz.registry.registry import attributions as attributions
    from cnnviz.registry.registry import hookimpl as hookimpl
    from cnnviz.registry.registry import metric as metric
    from cnnviz.registry.registry import metrics as metrics
    from cnnviz.registry.registry import renderer as renderer
    from cnnviz.registry.registry import renderers as renderers
    from cnnviz.registry.registry import syntheses as syntheses
    from cnnviz.registry.registry import synthesis as synthesis
    from cnnviz.run.objectives import Objective as Objective
    from cnnviz.run.objectives import channel as channel
    from cnnviz.run.objectives import class_score as class_score
    from cnnviz.run.objectives import closeness as closeness
    from cnnviz.run.objectives import direction as direction
    from cnnviz.run.objectives import diversity as diversity
    from cnnviz.run.objectives import feature_distance as feature_distance
    from cnnviz.run.objectives import feature_map as feature_map
    from cnnviz.run.objectives import layer_energy as layer_energy
    from cnnviz.run.objectives import neuron as neuron
    from cnnviz.run.objectives import output_of as output_of
    from cnnviz.run.objectives import strongest as strongest
    from cnnviz.run.regularizers import alpha_norm as alpha_norm
    from cnnviz.run.regularizers import l2 as l2
    from cnnviz.run.regularizers import total_variation as total_variation
    from cnnviz.run.run import Run as Run
    from cnnviz.run.targets import Target as Target
    from cnnviz.tasks.activation_crops import patch_sheet as patch_sheet
    from cnnviz.tasks.confusion_matrix import ConfusionMatrix as ConfusionMatrix
    from cnnviz.tasks.confusion_matrix import confusion_matrix as confusion_matrix
    from cnnviz.tasks.labels import labelled_pictures as labelled_pictures
    from cnnviz.tasks.object_segmentation import Segmentation as Segmentation
    from cnnviz.tasks.object_segmentation import segment as segment
    from cnnviz.tasks.receptive_fields import receptive_field as receptive_field
    from cnnviz.tasks.top_activations import TopActivation as TopActivation
    from cnnviz.tasks.top_activations import top_activations as top_activations

_HOME = {
    "ACTIVATIONS": "engine.operations",
    "Annotations": "images.annotations",
    "Ascent": "feature_visualization.ascent",
    "Attribution": "registry.protocols",
    "Baseline": "formulas.baselines",
    "Baselines": "formulas.baselines",
    "Bounds": "images.bounds",
    "Call": "engine.backward_rules",
    "Canvas": "feature_visualization.parameterizations",
    "ConfusionMatrix": "tasks.confusion_matrix",
    "ExplainOptions": "explanations.options",
    "Explanation": "explanations.explanation",
    "Expr": "formulas.expr",
    "Formula": "formulas.attribution",
    "FourierCanvas": "feature_visualization.parameterizations",
    "FreeCanvas": "feature_visualization.parameterizations",
    "INPUT": "engine.layers",
    "Layer": "engine.layers",
    "LoadedModel": "models.loading",
    "Metric": "registry.protocols",
    "Objective": "run.objectives",
    "PLAIN": "engine.backward_rules",
    "POINTWISE": "engine.operations",
    "PixelCanvas": "feature_visualization.parameterizations",
    "PluginError": "registry.registry",
    "Preprocessing": "images.preprocessing",
    "Quadrature": "formulas.sample_points",
    "RECTIFIERS": "engine.operations",
    "Renderer": "registry.protocols",
    "Rule": "engine.backward_rules",
    "Run": "run.run",
    "Seen": "engine.feature_extraction",
    "Segmentation": "tasks.object_segmentation",
    "SegmentationNet": "models.segmentation_net",
    "Sign": "explanations.evidence",
    "Synthesis": "registry.protocols",
    "Synthesized": "feature_visualization.result",
    "Target": "run.targets",
    "TopActivation": "tasks.top_activations",
    "Transformation": "feature_visualization.robustness",
    "Trial": "explanations.metric_context",
    "activation": "formulas.terms",
    "along": "formulas.baseline_contributions",
    "alpha_norm": "run.regularizers",
    "at": "formulas.terms",
    "attribution": "formulas.attribution",
    "attributions": "registry.registry",
    "backgrounds": "formulas.baselines",
    "baseline_input": "formulas.baselines",
    "between": "formulas.sample_points",
    "bias_maps": "formulas.terms",
    "bias_share": "formulas.terms",
    "blurred": "images.resampling",
    "channel": "run.objectives",
    "class_score": "run.objectives",
    "closeness": "run.objectives",
    "compared": "formulas.baseline_contributions",
    "confusion_matrix": "tasks.confusion_matrix",
    "composed": "feature_visualization.robustness",
    "direction": "run.objectives",
    "diversity": "run.objectives",
    "draw": "explanations.draw",
    "evaluate": "explanations.evaluate",
    "evidence": "explanations.evidence",
    "explain": "explanations.explain",
    "feature_distance": "run.objectives",
    "feature_map": "run.objectives",
    "gradient": "formulas.terms",
    "grid": "drawing.comparison",
    "hookimpl": "registry.registry",
    "image": "formulas.terms",
    "intersection_over_union": "models.segmentation_net",
    "input_pictures": "explanations.evidence",
    "jittered": "feature_visualization.robustness",
    "l2": "run.regularizers",
    "labelled_pictures": "tasks.labels",
    "layer_energy": "run.objectives",
    "learned_mask": "formulas.learned_mask",
    "lift": "formulas.expr",
    "load_model": "models.loading",
    "metric": "registry.registry",
    "metrics": "registry.registry",
    "middle": "feature_visualization.robustness",
    "neuron": "run.objectives",
    "noisy": "formulas.sample_points",
    "noted": "formulas.terms",
    "output_of": "run.objectives",
    "over": "formulas.expectation",
    "padded": "feature_visualization.robustness",
    "patch_sheet": "tasks.activation_crops",
    "path": "formulas.sample_points",
    "prediction": "formulas.terms",
    "procedure": "formulas.terms",
    "read_annotations": "images.annotations",
    "read_mask": "images.annotations",
    "receptive_field": "tasks.receptive_fields",
    "renderer": "registry.registry",
    "renderers": "registry.registry",
    "resize": "images.resampling",
    "robustness": "feature_visualization.robustness",
    "rotated": "feature_visualization.robustness",
    "rule": "engine.backward_rules",
    "scaled": "feature_visualization.robustness",
    "score": "formulas.terms",
    "segment": "tasks.object_segmentation",
    "strongest": "run.objectives",
    "syntheses": "registry.registry",
    "synthesis": "registry.registry",
    "synthesize": "feature_visualization.synthesize",
    "top_activations": "tasks.top_activations",
    "total_variation": "run.regularizers",
    "toward": "formulas.terms",
    "upsample": "formulas.terms",
}

__all__ = list(_HOME)
__getattr__, __dir__ = lazy_names(__name__, _HOME)
