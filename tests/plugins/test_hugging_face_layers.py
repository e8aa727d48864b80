"""The automatic layer of Hugging Face's networks, and the maps of it beside a reshape by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from slow_cams import SLOW
from torch import Tensor, nn

from cnnviz import explain
from cnnviz.targets import box

transformers = pytest.importorskip("transformers")


def swin() -> nn.Module:
    sizes = {"image_size": 64, "patch_size": 4, "embed_dim": 12, "depths": [2, 2], "num_heads": [2, 2]}
    return transformers.SwinForImageClassification(transformers.SwinConfig(window_size=4, num_labels=5, **sizes))


def beit() -> nn.Module:
    sizes = {"image_size": 64, "patch_size": 16, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.BeitConfig(
        intermediate_size=48, num_labels=5, use_relative_position_bias=True, use_mean_pooling=True, **sizes
    )
    return transformers.BeitForImageClassification(config)


def backbone(stages: int) -> Any:
    names = [f"stage{number + 1}" for number in range(stages)]
    return transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8] * stages, depths=[1] * stages, out_features=names, layer_type="basic"
    )


def detr() -> nn.Module:
    config = transformers.DetrConfig(
        use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=backbone(2),
        d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, num_queries=5, num_labels=3,
    )  # fmt: skip
    return transformers.DetrForObjectDetection(config)


def upernet() -> nn.Module:
    config = transformers.UperNetConfig(
        backbone_config=backbone(4), hidden_size=16, num_labels=4, auxiliary_in_channels=8, pool_scales=[1, 2]
    )
    return transformers.UperNetForSemanticSegmentation(config)


def made(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build().double().eval()
        for parameter in model.parameters():
            if parameter.ndim == 1 or parameter.std() < 0.01:  # as after training
                parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def pictures(items: int, *size: int) -> Tensor:
    return torch.randn(items, 3, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("items", [1, 2])
@pytest.mark.parametrize(
    ("build", "layer", "extra", "side"), [(swin, "swin.layernorm", 0, 8), (beit, "beit.layers.1", 1, 4)]
)
def test_maps_equal_a_reshape_by_hand(
    build: Callable[[], nn.Module], layer: str, extra: int, side: int, items: int
) -> None:
    model, x = made(build), pictures(items, 64, 64)
    kept: list[Tensor] = []
    handle = model.get_submodule(layer).register_forward_hook(
        lambda *passed: kept.append(passed[2] if isinstance(passed[2], Tensor) else passed[2][0])
    )
    score = model(x).logits[:, 2].sum()
    handle.remove()
    (grad,) = torch.autograd.grad(score, kept[0])
    maps, grads = (each[:, extra:].mT.reshape(items, -1, side, side).detach() for each in (kept[0], grad))
    for method in ("grad_cam", "layer_cam", "hires_cam"):
        found = explain(model, x, method, target=lambda output: output.logits[:, 2])
        assert found.recipe == f"{method}(layer={layer!r})"
        for item in range(items):
            by_hand = SLOW[method](maps[item], grads[item])
            torch.testing.assert_close(found.values[item, 0], by_hand, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("target", [lambda output: output.logits[:, 0, 1], box(0)], ids=["function", "box"])
def test_of_a_detector_no_table_of_positions_is_explained(target: Any) -> None:
    found = explain(made(detr), pictures(1, 64, 96), target=target)
    assert found.recipe == "grad_cam(layer='model.encoder.layers.0')"
    assert found.values.shape == (1, 1, 8, 12)
    assert found.values.any()


def test_of_a_segmentation_the_auxiliary_head_is_passed_over() -> None:
    found = explain(made(upernet), pictures(1, 64, 96), target=lambda output: output.logits[:, 1].mean((1, 2)))
    assert found.recipe == "grad_cam(layer='decode_head.fpn_bottleneck')"
    assert found.values.any()
