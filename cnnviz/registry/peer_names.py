"""How other libraries call methods and settings: hints for error texts. No name here runs anything.

One table for Python and the command line. A name is looked up without regard to capitals, hyphens and underscores.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

_SMOOTHED = "with of='grad_cam_plus_plus' it is near to torchcam's SmoothGradCAMpp"
_NOISE = "captum's NoiseTunnel wraps a method, as smoothgrad(of='gradient') does; vargrad and smoothgrad_squared too"

METHODS: dict[str, tuple[str, str]] = {
    "attnlrp": ("lrp", "with attention='attn_lrp', its default"),
    "backprop": ("gradient", ""),
    "blurmask": ("meaningful_perturbation", ""),
    "chefer": ("transformer_attribution", ""),
    "conceptrelevancepropagation": ("conditional_relevance", ""),
    "crp": ("conditional_relevance", "zennit-crp calls it CRP"),
    "deconv": ("deconvnet", ""),
    "deconvolution": ("deconvnet", "captum calls it Deconvolution"),
    "deepexplainer": ("deeplift_shap", "shap calls it DeepExplainer"),
    "deepshap": ("deeplift_shap", ""),
    "epsilonalpha2beta1": ("lrp", "zennit's EpsilonAlpha2Beta1 is composite='epsilon_alpha2_beta1'"),
    "epsilongammabox": ("lrp", "zennit's EpsilonGammaBox is composite='epsilon_gamma_box'"),
    "epsilonplus": ("lrp", "zennit's EpsilonPlus is its composite by default"),
    "fullgradient": ("fullgrad", ""),
    "gbp": ("guided_backprop", ""),
    "gradcam++": ("grad_cam_plus_plus", ""),
    "gradcampp": ("grad_cam_plus_plus", "torchcam calls it GradCAMpp"),
    "gradcamelementwise": ("hires_cam", "GradCAMElementWise of pytorch-grad-cam cuts negative products first"),
    "gradientexplainer": ("expected_gradients", "shap calls it GradientExplainer"),
    "gradientinput": ("input_x_gradient", "xplique calls it GradientInput"),
    "gradientsinputs": ("input_x_gradient", "tf-explain calls it GradientsInputs"),
    "gradients": ("gradient", ""),
    "gradientsaliency": ("gradient", "PAIR saliency calls it GradientSaliency"),
    "gradientxinput": ("input_x_gradient", ""),
    "gradxinput": ("input_x_gradient", ""),
    "guidedbp": ("guided_backprop", ""),
    "guidedbackpropagation": ("guided_backprop", ""),
    "ig": ("integrated_gradients", ""),
    "inputtgradient": ("input_x_gradient", "iNNvestigate calls it input_t_gradient"),
    "kernelexplainer": ("kernel_shap", "shap calls it KernelExplainer"),
    "layeractivation": ("activation", "captum calls it LayerActivation"),
    "layerwiserelevancepropagation": ("lrp", ""),
    "layergradcam": ("grad_cam", "captum calls it LayerGradCam"),
    "noisetunnel": ("smoothgrad", _NOISE),
    "occlusionsensitivity": ("occlusion", "tf-explain calls it OcclusionSensitivity"),
    "rollout": ("attention_rollout", ""),
    "saliency": ("gradient", "captum calls it Saliency"),
    "saliencymap": ("gradient", ""),
    "saliencymaps": ("gradient", ""),
    "shapleyvalues": ("shapley_sampling", "captum's ShapleyValues takes all orders, and this draws some"),
    "shapleyvaluesampling": ("shapley_sampling", "captum calls it ShapleyValueSampling"),
    "slidingwindow": ("occlusion", ""),
    "smoothgradcam++": ("smoothgrad", _SMOOTHED),
    "smoothgradcampp": ("smoothgrad", _SMOOTHED),
    "squaregrad": ("smoothgrad_squared", "xplique calls it SquareGrad"),
    "vanillagrad": ("gradient", ""),
    "vanillagradient": ("gradient", ""),
    "vanillagradients": ("gradient", "tf-explain calls it VanillaGradients"),
    # metrics
    "completeness": ("completeness_gap", ""),
    "increaseinconfidence": ("average_increase", ""),
    "modelparameterrandomisation": ("randomization", "Quantus calls it ModelParameterRandomisation"),
    "mprt": ("randomization", "Quantus calls it MPRT"),
    "relevancemassaccuracy": ("mass_inside", "Quantus calls it RelevanceMassAccuracy"),
    "sensitivitymax": ("max_sensitivity", "captum calls it sensitivity_max"),
    "auc": ("roc_auc", ""),
    "iou": ("mask_iou", ""),
    # what makes inputs
    "dream": ("deep_dream", ""),
    "rendervis": ("feature_image", "lucent calls it render_vis"),
    # renderers
    "blendedheatmap": ("overlay", "captum calls it blended_heat_map"),
    "blendedheatmapoverlay": ("overlay", ""),
    "showcamonimage": ("overlay", "pytorch-grad-cam calls it show_cam_on_image"),
}
"""From a peer's name, in small letters without hyphens and underscores, to the method's name here and a remark."""

SETTINGS: dict[str, tuple[tuple[str, ...], str]] = {
    "alpha": (("opacity",), "matplotlib calls it alpha"),
    "backgrounddata": (("baselines", "baseline"), "shap calls it background data"),
    "backgrounds": (("baselines", "baseline"), ""),
    "baseline": (("baselines", "baseline"), ""),
    "baselines": (("baseline", "baselines"), "captum calls it baselines"),
    "cmap": (("colormap",), "matplotlib calls it cmap"),
    "colourmap": (("colormap",), ""),
    "convlayer": (("layer",), ""),
    "epochs": (("steps",), ""),
    "featuremask": (("segments",), "captum calls it feature_mask"),
    "imageweight": (("opacity",), "pytorch-grad-cam's image_weight is 1 minus it"),
    "iterations": (("steps",), ""),
    "learningrate": (("lr",), ""),
    "masks": (("samples", "permutations"), ""),
    "method": (("quadrature",), "captum calls it method"),
    "nmasks": (("masks",), ""),
    "noiselevel": (("sigma",), ""),
    "nperturbations": (("samples", "masks"), ""),
    "nsamples": (("samples", "masks", "permutations", "steps"), ""),
    "nsteps": (("steps",), "captum calls it n_steps"),
    "ntsamples": (("samples",), "captum calls it nt_samples"),
    "numsamples": (("samples", "masks", "permutations"), ""),
    "numsteps": (("steps",), ""),
    "outlierperc": (("percentile",), "captum's outlier_perc is 100 minus it"),
    "patchsize": (("window",), "xplique calls it patch_size"),
    "patchstride": (("stride",), "xplique calls it patch_stride"),
    "samples": (("samples", "masks", "permutations", "steps"), ""),
    "slidingwindowshapes": (("window",), "captum calls it sliding_window_shapes"),
    "std": (("sigma",), ""),
    "stdev": (("sigma",), ""),
    "stdevs": (("sigma",), "captum's stdevs is in units of the input, and sigma a share of its range"),
    "stdevspread": (("sigma",), "PAIR saliency calls it stdev_spread"),
    "steps": (("steps", "samples", "masks", "permutations"), ""),
    "strides": (("stride",), "captum calls it strides"),
    "targetlayer": (("layer",), "torchcam calls it target_layer"),
    "targetlayers": (("layer",), "pytorch-grad-cam calls it target_layers"),
    "windowsize": (("window",), ""),
}
"""From a peer's setting to the names that it may have here, the likeliest first, and a remark."""

_CHUNKS = "chunks are as large as the memory allows: say memory="
_TARGET = "the class is target="
ARGUMENTS: dict[str, str] = {
    "attribution": "draw calls it method=",
    "attributions": "the method is the third argument, attribution=",
    "batchsize": _CHUNKS,
    "categories": "class names are categories= of explain",
    "classidx": _TARGET,
    "classindex": _TARGET,
    "internalbatchsize": _CHUNKS,
    "method": "the method is the third argument, attribution=",
    "methods": "the method is the third argument, attribution=",
    "ntsamplesbatchsize": _CHUNKS,
    "perturbationspereval": _CHUNKS,
    "targetcategory": _TARGET,
    "targetclass": _TARGET,
    "targets": _TARGET,
    "verbose": "a bar is progress=True",
    "showprogress": "a bar is progress=True",
}
"""What peers take as a setting of a method, and here is said in another place."""


def squeezed(name: str) -> str:
    """A name in small letters, without what people write between words."""
    return re.sub(r"[\s_.-]+", "", name.lower())


def near_methods(name: str, known: Iterable[str]) -> tuple[list[str], str]:
    """The names that may have been meant, the likeliest first, and a remark on the first; [] for none."""
    names, wanted = list(known), squeezed(name)
    if not wanted:
        return [], ""
    if alike := [other for other in names if squeezed(other) == wanted]:
        return alike, ""
    own, remark = METHODS.get(wanted, ("", ""))
    if own in names:
        return [own], remark
    if len(wanted) > 2 and (longer := [other for other in names if squeezed(other).startswith(wanted)]):
        return longer[:4], ""
    return difflib.get_close_matches(name, names, n=1) or difflib.get_close_matches(name.lower(), names, n=1), ""


def near_settings(name: str, known: Iterable[str], cutoff: float = 0.6) -> tuple[list[str], str]:
    """The same for a setting. A remark without a name tells where else it is said."""
    names, wanted = list(known), squeezed(name)
    if alike := [other for other in names if wanted and squeezed(other) == wanted]:
        return alike, ""
    own, remark = SETTINGS.get(wanted, ((), ""))
    if found := next((other for other in own if other in names), None):
        return [found], remark
    if wanted in ARGUMENTS:
        return [], ARGUMENTS[wanted]
    return difflib.get_close_matches(name, names, n=1, cutoff=cutoff), ""


def asked_back(near: Iterable[str], remark: str = "") -> str:
    """``did you mean 'gradient'? captum calls it Saliency``."""
    question = f"did you mean {' or '.join(map(repr, near))}?"
    return f"{question} {remark}" if remark else question


def of_methods(name: str, known: Iterable[str]) -> str:
    """The way out from a method's name that is not there: what may have been meant, else what there is."""
    near, remark = near_methods(name, known := list(known))
    return asked_back(near, remark) if near else f"there are {', '.join(known) or 'none'}"


def of_settings(name: str, known: Iterable[str]) -> str:
    """The same for a setting."""
    near, remark = near_settings(name, known := list(known))
    return asked_back(near, remark) if near else remark or f"it takes {', '.join(known) or 'none'}"
