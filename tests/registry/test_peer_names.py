"""Names of other libraries are hints in error texts, and run nothing."""

from __future__ import annotations

import pytest

import cnnviz
from cnnviz.registry.peer_names import METHODS, SETTINGS, squeezed
from cnnviz.registry.registry import registries

SAID = {
    "GradCAM": "grad_cam",
    "gradcam": "grad_cam",
    "Grad-CAM": "grad_cam",
    "Grad_CAM": "grad_cam",
    "gradcam++": "grad_cam_plus_plus",
    "GradCAMPlusPlus": "grad_cam_plus_plus",
    "GradCAMpp": "grad_cam_plus_plus",
    "ScoreCAM": "score_cam",
    "XGradCAM": "xgrad_cam",
    "LayerCAM": "layer_cam",
    "EigenCAM": "eigen_cam",
    "EigenGradCAM": "eigen_grad_cam",
    "AblationCAM": "ablation_cam",
    "HiResCAM": "hires_cam",
    "FullGrad": "fullgrad",
    "SmoothGradCAMpp": "smoothgrad",
    "saliency": "gradient",
    "Saliency": "gradient",
    "SaliencyMap": "gradient",
    "vanilla_gradient": "gradient",
    "IntegratedGradients": "integrated_gradients",
    "ig": "integrated_gradients",
    "InputXGradient": "input_x_gradient",
    "GuidedBackprop": "guided_backprop",
    "GuidedGradCam": "guided_grad_cam",
    "Deconvolution": "deconvnet",
    "Occlusion": "occlusion",
    "FeatureAblation": "feature_ablation",
    "ShapleyValueSampling": "shapley_sampling",
    "KernelShap": "kernel_shap",
    "DeepLift": "deeplift",
    "DeepLiftShap": "deeplift_shap",
    "GradientShap": "gradient_shap",
    "NoiseTunnel": "smoothgrad",
    "Lime": "lime",
    "RISE": "rise",
}


@pytest.mark.parametrize("name", SAID)
def test_a_peers_method_is_a_hint(name: str) -> None:
    with pytest.raises(LookupError, match="there is no attribution") as raised:
        cnnviz.attributions[name]
    assert f"; did you mean {SAID[name]!r}?" in str(raised.value)


def test_the_hint_says_who_calls_it_so() -> None:
    with pytest.raises(LookupError, match=r"'saliency'; did you mean 'gradient'\? captum calls it Saliency$"):
        cnnviz.attributions["saliency"]


def test_a_beginning_names_what_begins_so() -> None:
    with pytest.raises(LookupError, match=r"'integrated'; did you mean 'integrated_gradients'\?"):
        cnnviz.attributions["integrated"]
    with pytest.raises(LookupError, match=r"'guided'; did you mean 'guided_backprop' or 'guided_grad_cam'\?"):
        cnnviz.attributions["guided"]


def test_a_name_of_another_kind_is_told() -> None:
    with pytest.raises(LookupError, match="there is no attribution 'heatmap'; 'heatmap' is a renderer; there are "):
        cnnviz.attributions["heatmap"]


def test_every_hint_leads_to_what_exists() -> None:
    names = {name for registry in registries for name in registry}
    settings = {setting for registry in registries for name in registry for setting in registry[name].settings}
    assert {own for own, _ in METHODS.values()} <= names
    assert {own for candidates, _ in SETTINGS.values() for own in candidates} <= settings
    assert all(squeezed(name) == name for name in (*METHODS, *SETTINGS))
    assert not {squeezed(name) for name in names} & set(METHODS)  # a method's own name needs no hint


@pytest.mark.parametrize(
    ("method", "setting", "hint"),
    [
        ("integrated_gradients", "n_steps", "did you mean 'steps'? captum calls it n_steps"),
        ("integrated_gradients", "baselines", "did you mean 'baseline'? captum calls it baselines"),
        ("integrated_gradients", "internal_batch_size", "chunks are as large as the memory allows: say memory="),
        ("deeplift_shap", "baseline", "did you mean 'baselines'?"),
        ("smoothgrad", "nt_samples", "did you mean 'samples'? captum calls it nt_samples"),
        ("smoothgrad", "stdevs", "did you mean 'sigma'?"),
        ("smoothgrad", "steps", "did you mean 'samples'?"),
        ("rise", "samples", "did you mean 'masks'?"),
        ("rise", "n_masks", "did you mean 'masks'?"),
        ("shapley_sampling", "n_samples", "did you mean 'permutations'?"),
        ("occlusion", "sliding_window_shapes", "did you mean 'window'? captum calls it sliding_window_shapes"),
        ("occlusion", "strides", "did you mean 'stride'?"),
        ("occlusion", "perturbations_per_eval", "say memory="),
        ("grad_cam", "target_layers", "did you mean 'layer'? pytorch-grad-cam calls it target_layers"),
        ("grad_cam", "target_layer", "did you mean 'layer'? torchcam calls it target_layer"),
        ("grad_cam", "targets", "the class is target="),
        ("grad_cam", "target_category", "the class is target="),
        ("grad_cam", "method", "the method is the third argument, attribution="),
        ("grad_cam", "Layer", "did you mean 'layer'?"),
        ("lime", "feature_mask", "did you mean 'segments'?"),
    ],
)
def test_a_peers_setting_is_a_hint(method: str, setting: str, hint: str) -> None:
    with pytest.raises(TypeError, match=f"{method} has no setting '{setting}'; ") as raised:
        cnnviz.attributions[method](**{setting: 1})
    assert hint in str(raised.value)


@pytest.mark.parametrize(("setting", "own"), [("cmap", "colormap"), ("alpha", "opacity"), ("image_weight", "opacity")])
def test_a_peers_setting_of_a_renderer_is_a_hint(setting: str, own: str) -> None:
    with pytest.raises(TypeError, match=rf"overlay has no setting '{setting}'; did you mean '{own}'\?"):
        cnnviz.renderers["overlay"](**{setting: 1})


def test_registries_list_themselves() -> None:
    assert repr(cnnviz.metrics).startswith(f"<{len(cnnviz.metrics)} metrics: average_drop, average_increase, ")
