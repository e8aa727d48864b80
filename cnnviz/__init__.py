"""See why a convolutional network decided what it did.

Everything public is here. Names are imported when first used, so that ``import cnnviz`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cnnviz.annotations import Annotations as Annotations
    from cnnviz.annotations import read_annotations as read_annotations
    from cnnviz.annotations import read_mask as read_mask
    from cnnviz.ascent import Ascent as Ascent
    from cnnviz.baseline_sets import Baselines as Baselines
    from cnnviz.baseline_sets import backgrounds as backgrounds
    from cnnviz.baseline_sets import between as between
    from cnnviz.baselines import Baseline as Baseline
    from cnnviz.baselines import baseline_input as baseline_input
    from cnnviz.baselines import blurred as blurred
    from cnnviz.canvases import Bounds as Bounds
    from cnnviz.canvases import Canvas as Canvas
    from cnnviz.canvases import FourierCanvas as FourierCanvas
    from cnnviz.canvases import FreeCanvas as FreeCanvas
    from cnnviz.canvases import PixelCanvas as PixelCanvas
    from cnnviz.compose import Expr as Expr
    from cnnviz.compose import Formula as Formula
    from cnnviz.compose import attribution as attribution
    from cnnviz.compose import lift as lift
    from cnnviz.confusions import Confusions as Confusions
    from cnnviz.confusions import find_confusions as find_confusions
    from cnnviz.contrasts import along as along
    from cnnviz.contrasts import compared as compared
    from cnnviz.deconvolution import SegmentationNet as SegmentationNet
    from cnnviz.deconvolution import intersection_over_union as intersection_over_union
    from cnnviz.drawing import draw as draw
    from cnnviz.elsewhere import over as over
    from cnnviz.evaluating import evaluate as evaluate
    from cnnviz.exciting import Excited as Excited
    from cnnviz.exciting import find_exciting as find_exciting
    from cnnviz.explaining import explain as explain
    from cnnviz.explanation import Explanation as Explanation
    from cnnviz.fields import receptive_field as receptive_field
    from cnnviz.grids import grid as grid
    from cnnviz.labels import labelled_pictures as labelled_pictures
    from cnnviz.layers import INPUT as INPUT
    from cnnviz.layers import Layer as Layer
    from cnnviz.learned_masks import learned_mask as learned_mask
    from cnnviz.maps import Sign as Sign
    from cnnviz.maps import evidence as evidence
    from cnnviz.maps import input_pictures as input_pictures
    from cnnviz.models import LoadedModel as LoadedModel
    from cnnviz.models import load_model as load_model
    from cnnviz.objectives import Objective as Objective
    from cnnviz.objectives import alpha_norm as alpha_norm
    from cnnviz.objectives import channel as channel
    from cnnviz.objectives import class_score as class_score
    from cnnviz.objectives import closeness as closeness
    from cnnviz.objectives import direction as direction
    from cnnviz.objectives import diversity as diversity
    from cnnviz.objectives import feature_distance as feature_distance
    from cnnviz.objectives import feature_map as feature_map
    from cnnviz.objectives import l2 as l2
    from cnnviz.objectives import layer_energy as layer_energy
    from cnnviz.objectives import neuron as neuron
    from cnnviz.objectives import output_of as output_of
    from cnnviz.objectives import strongest as strongest
    from cnnviz.objectives import total_variation as total_variation
    from cnnviz.operations import ACTIVATIONS as ACTIVATIONS
    from cnnviz.operations import POINTWISE as POINTWISE
    from cnnviz.operations import RECTIFIERS as RECTIFIERS
    from cnnviz.parts import activation as activation
    from cnnviz.parts import at as at
    from cnnviz.parts import bias_maps as bias_maps
    from cnnviz.parts import bias_share as bias_share
    from cnnviz.parts import gradient as gradient
    from cnnviz.parts import image as image
    from cnnviz.parts import noted as noted
    from cnnviz.parts import prediction as prediction
    from cnnviz.parts import procedure as procedure
    from cnnviz.parts import score as score
    from cnnviz.parts import toward as toward
    from cnnviz.parts import upsample as upsample
    from cnnviz.patches import patch_sheet as patch_sheet
    from cnnviz.points import Quadrature as Quadrature
    from cnnviz.points import noisy as noisy
    from cnnviz.points import path as path
    from cnnviz.preprocessing import Preprocessing as Preprocessing
    from cnnviz.protocols import Attribution as Attribution
    from cnnviz.protocols import Metric as Metric
    from cnnviz.protocols import Renderer as Renderer
    from cnnviz.protocols import Synthesis as Synthesis
    from cnnviz.registry import PluginError as PluginError
    from cnnviz.registry import attributions as attributions
    from cnnviz.registry import hookimpl as hookimpl
    from cnnviz.registry import metric as metric
    from cnnviz.registry import metrics as metrics
    from cnnviz.registry import renderer as renderer
    from cnnviz.registry import renderers as renderers
    from cnnviz.registry import syntheses as syntheses
    from cnnviz.registry import synthesis as synthesis
    from cnnviz.rules import PLAIN as PLAIN
    from cnnviz.rules import Call as Call
    from cnnviz.rules import Rule as Rule
    from cnnviz.rules import rule as rule
    from cnnviz.run import Run as Run
    from cnnviz.seeing import Seen as Seen
    from cnnviz.segmenting import Segmentation as Segmentation
    from cnnviz.segmenting import segment as segment
    from cnnviz.synthesized import Synthesized as Synthesized
    from cnnviz.synthesizing import synthesize as synthesize
    from cnnviz.targets import Target as Target
    from cnnviz.transformations import Transformation as Transformation
    from cnnviz.transformations import composed as composed
    from cnnviz.transformations import jittered as jittered
    from cnnviz.transformations import middle as middle
    from cnnviz.transformations import padded as padded
    from cnnviz.transformations import robustness as robustness
    from cnnviz.transformations import rotated as rotated
    from cnnviz.transformations import scaled as scaled
    from cnnviz.trials import Trial as Trial

_HOME = {
    "ACTIVATIONS": "operations",
    "Annotations": "annotations",
    "Ascent": "ascent",
    "Attribution": "protocols",
    "Baseline": "baselines",
    "Baselines": "baseline_sets",
    "Bounds": "canvases",
    "Call": "rules",
    "Canvas": "canvases",
    "Confusions": "confusions",
    "Excited": "exciting",
    "Explanation": "explanation",
    "Expr": "compose",
    "Formula": "compose",
    "FourierCanvas": "canvases",
    "FreeCanvas": "canvases",
    "INPUT": "layers",
    "Layer": "layers",
    "LoadedModel": "models",
    "Metric": "protocols",
    "Objective": "objectives",
    "PLAIN": "rules",
    "POINTWISE": "operations",
    "PixelCanvas": "canvases",
    "PluginError": "registry",
    "Preprocessing": "preprocessing",
    "Quadrature": "points",
    "RECTIFIERS": "operations",
    "Renderer": "protocols",
    "Rule": "rules",
    "Run": "run",
    "Seen": "seeing",
    "Segmentation": "segmenting",
    "SegmentationNet": "deconvolution",
    "Sign": "maps",
    "Synthesis": "protocols",
    "Synthesized": "synthesized",
    "Target": "targets",
    "Transformation": "transformations",
    "Trial": "trials",
    "activation": "parts",
    "along": "contrasts",
    "alpha_norm": "objectives",
    "at": "parts",
    "attribution": "compose",
    "attributions": "registry",
    "backgrounds": "baseline_sets",
    "baseline_input": "baselines",
    "between": "baseline_sets",
    "bias_maps": "parts",
    "bias_share": "parts",
    "blurred": "baselines",
    "channel": "objectives",
    "class_score": "objectives",
    "closeness": "objectives",
    "compared": "contrasts",
    "composed": "transformations",
    "direction": "objectives",
    "diversity": "objectives",
    "draw": "drawing",
    "evaluate": "evaluating",
    "evidence": "maps",
    "explain": "explaining",
    "feature_distance": "objectives",
    "feature_map": "objectives",
    "find_confusions": "confusions",
    "find_exciting": "exciting",
    "gradient": "parts",
    "grid": "grids",
    "hookimpl": "registry",
    "image": "parts",
    "intersection_over_union": "deconvolution",
    "input_pictures": "maps",
    "jittered": "transformations",
    "l2": "objectives",
    "labelled_pictures": "labels",
    "layer_energy": "objectives",
    "learned_mask": "learned_masks",
    "lift": "compose",
    "load_model": "models",
    "metric": "registry",
    "metrics": "registry",
    "middle": "transformations",
    "neuron": "objectives",
    "noisy": "points",
    "noted": "parts",
    "output_of": "objectives",
    "over": "elsewhere",
    "padded": "transformations",
    "patch_sheet": "patches",
    "path": "points",
    "prediction": "parts",
    "procedure": "parts",
    "read_annotations": "annotations",
    "read_mask": "annotations",
    "receptive_field": "fields",
    "renderer": "registry",
    "renderers": "registry",
    "robustness": "transformations",
    "rotated": "transformations",
    "rule": "rules",
    "scaled": "transformations",
    "score": "parts",
    "segment": "segmenting",
    "strongest": "objectives",
    "syntheses": "registry",
    "synthesis": "registry",
    "synthesize": "synthesizing",
    "total_variation": "objectives",
    "toward": "parts",
    "upsample": "parts",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'cnnviz' has no attribute {name!r}")
    found = getattr(import_module(f"cnnviz.{_HOME[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(_HOME)
