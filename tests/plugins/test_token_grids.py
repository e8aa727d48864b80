"""Class activation maps of transformers equal those of a hand-written reshape of tokens and channels-last maps."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from slow_cams import SLOW
from torch import Tensor, nn
from torchvision.models import VisionTransformer
from torchvision.models.swin_transformer import SwinTransformer

from cnnviz import explain

timm = pytest.importorskip("timm")
multiscale = timm.models.mvitv2


def small(name: str, **settings: Any) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, pretrained=False, num_classes=5, **settings)


def tokens(extra: int, *grid: int) -> Callable[[Tensor], Tensor]:
    def read(values: Tensor) -> Tensor:
        return values[:, extra:].mT.reshape(len(values), -1, *grid)

    return read


def last(values: Tensor) -> Tensor:
    return values.permute(0, 3, 1, 2)


def first(values: Tensor) -> Tensor:
    return values


BLOCKS = {"depth": 2, "embed_dim": 24, "num_heads": 3}
STAGES = {"embed_dim": 12, "depths": (2, 2), "num_heads": (2, 2), "img_size": 64}
NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int], str, Callable[[Tensor], Tensor]]] = {
    "torchvision vit": (
        lambda: VisionTransformer(48, 16, 2, 3, 24, 48, num_classes=5),
        *((48, 48), "encoder.layers.encoder_layer_1.ln_1", tokens(1, 3, 3)),
    ),
    "torchvision swin": (
        lambda: SwinTransformer([4, 4], 12, [2, 2], [2, 2], [4, 4], num_classes=5),
        *((64, 96), "permute", first),
    ),
    "deit3": (
        small("deit3_small_patch16_224", img_size=(48, 64), **BLOCKS),
        (48, 64),
        "blocks.1.norm1",
        tokens(1, 3, 4),
    ),
    "deit distilled": (
        small("deit_tiny_distilled_patch16_224", img_size=(64, 48), **BLOCKS),
        *((64, 48), "blocks.1.norm1", tokens(2, 4, 3)),
    ),
    "dinov2 reg4": (
        small("vit_small_patch14_reg4_dinov2", img_size=(42, 56), **BLOCKS),
        *((42, 56), "blocks.1.norm1", tokens(5, 3, 4)),
    ),
    "swin": (small("swin_tiny_patch4_window7_224", window_size=4, **STAGES), (64, 64), "norm", last),
    "swinv2": (small("swinv2_tiny_window8_256", window_size=4, **STAGES), (64, 64), "norm", last),
    "beit": (small("beit_base_patch16_224", img_size=64, **BLOCKS), (64, 64), "blocks.1", tokens(1, 4, 4)),
    "pvt_v2": (small("pvt_v2_b0", depths=(1, 1, 1, 1)), (64, 96), "stages", first),
    "mvitv2": (
        lambda: multiscale.MultiScaleVit(
            multiscale.MultiScaleVitCfg(depths=(1, 1), embed_dim=24, num_heads=1), img_size=(64, 64), num_classes=5
        ),
        *((64, 64), "norm", tokens(0, 8, 8)),
    ),
    "coat": (
        lambda: timm.models.coat.CoaT(
            img_size=64,
            patch_size=4,
            num_classes=5,
            embed_dims=(32, 32, 32, 32),
            serial_depths=(1, 1, 1, 1),
            parallel_depth=1,
            num_heads=8,
            mlp_ratios=(1, 1, 1, 1),
        ),
        *((64, 64), "parallel_blocks.0.norm14", tokens(1, 2, 2)),
    ),
}


def made(name: str) -> tuple[nn.Module, Tensor, str, Callable[[Tensor], Tensor]]:
    build, size, layer, read = NETS[name]
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, when timm builds its tables
        torch.manual_seed(0)
        model = build().double().eval()

        for parameter in model.parameters():
            if parameter.ndim == 1 or parameter.std() < 0.01:  # as after training
                parameter.data += 0.1 * torch.randn_like(parameter)
        return model, torch.randn(2, 3, *size, dtype=torch.float64), layer, read


def seen(model: nn.Module, x: Tensor, layer: str, target: int) -> tuple[Tensor, Tensor]:
    """What a layer gives, and the gradient of a class's score at it."""
    kept: list[Tensor] = []
    handle = model.get_submodule(layer).register_forward_hook(lambda *passed: kept.append(passed[2]))
    score = model(x)[:, target].sum()
    handle.remove()
    return kept[0].detach(), torch.autograd.grad(score, kept[0])[0]


@pytest.mark.parametrize("name", NETS)
def test_maps_equal_a_reshape_by_hand(name: str) -> None:
    model, x, layer, read = made(name)
    maps, grads = map(read, seen(model, x, layer, 1))
    found = explain(model, x, tuple(SLOW), target=1)
    for method, answer in found.items():
        assert answer.recipe == f"{method}(layer={layer!r})"
        for item in range(2):
            by_hand = SLOW[method](maps[item], grads[item])
            loose = method in ("eigen_cam", "eigen_grad_cam")  # an eigenvector of the products, and of the matrix here
            torch.testing.assert_close(answer.values[item, 0], by_hand, rtol=1e-6 if loose else 1e-10, atol=1e-10)


@pytest.mark.parametrize("name", NETS)
def test_score_cam_equals_a_reshape_by_hand(name: str) -> None:
    model, x, layer, read = made(name)
    maps = read(seen(model, x, layer, 1)[0])
    channels = 6
    found = explain(model, x, "score_cam", target=1, channels=channels, channel_softmax=False)
    with torch.no_grad():
        for item in range(2):
            spread = maps[item].flatten(1)
            chosen = (spread.amax(1) - spread.amin(1)).argsort(descending=True, stable=True)[:channels]
            scored = torch.zeros_like(maps[item, 0])
            for channel in chosen:
                mask = F.interpolate(maps[item, channel][None, None], x.shape[2:], mode="bilinear", align_corners=False)
                mask = (mask - mask.amin()) / (mask.amax() - mask.amin())
                scored += model(mask * x[item : item + 1])[0, 1] * maps[item, channel]
            torch.testing.assert_close(found.values[item, 0], scored, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["torchvision vit", "dinov2 reg4", "swin", "mvitv2"])
def test_ablation_cam_equals_a_reshape_by_hand(name: str) -> None:
    model, x, layer, read = made(name)
    output, _ = seen(model, x, layer, 1)
    maps = read(output)
    channels = 6
    extra = output.shape[1] - maps[0, 0].numel() if output.ndim == 3 else 0
    found = explain(model, x, "ablation_cam", target=1, channels=channels)
    with torch.no_grad():
        for item in range(2):
            spread = maps[item].flatten(1)
            plain = model(x[item : item + 1])[0, 1]
            chosen = spread.abs().amax(1).argsort(descending=True, stable=True)[:channels]
            ablated = torch.zeros_like(maps[item, 0])
            for channel in chosen:

                def without(module: Any, args: Any, value: Tensor, channel: Tensor = channel) -> Tensor:
                    changed = value.clone()
                    read(changed)  # the same places, written below in the layer's own layout
                    places = slice(extra, None)
                    if value.ndim == 3:
                        changed[:, places, channel] = 0
                    else:
                        changed[..., channel] = 0
                    return changed

                handle = model.get_submodule(layer).register_forward_hook(without)
                ablated += (plain - model(x[item : item + 1])[0, 1]) / plain.abs() * maps[item, channel]
                handle.remove()
            torch.testing.assert_close(found.values[item, 0], ablated, rtol=1e-8, atol=1e-10)


def test_layouts_said_by_hand() -> None:
    model, x, layer, _ = made("dinov2 reg4")
    expected = explain(model, x, "layer_cam", target=1, layer=layer).values
    for grid in ((3, 4), [3, 4], "3x4"):
        said = {"layout": "tokens", "grid": grid, "extra": 5}
        found = explain(model, x, "layer_cam", target=1, layer=layer, **said)
        assert torch.equal(found.values, expected)
    assert found.recipe == "layer_cam(layer='blocks.1.norm1', layout='tokens', grid='3x4', extra=5)"
    with pytest.raises(ValueError, match=r"17 tokens without 1 extra ones are no grid of 4 x 5; say grid="):
        explain(model, x, "layer_cam", target=1, layer=layer, layout="tokens", grid=(4, 5), extra=1)
    with pytest.raises(ValueError, match="grid= and extra= are of a layout that is said by hand"):
        explain(model, x, "layer_cam", target=1, layer=layer, grid=(3, 4))
    with pytest.raises(ValueError, match="there is no layout 'rows'; it is 'auto', 'tokens'"):
        explain(model, x, "layer_cam", target=1, layer=layer, layout="rows")
    swin, x, layer, _ = made("swin")
    expected = explain(swin, x, "grad_cam", target=1).values
    assert torch.equal(explain(swin, x, "grad_cam", target=1, layer=layer, layout="channels_last").values, expected)


def test_what_an_unknown_operation_hides_is_refused_and_can_be_said() -> None:
    class Unknown(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.norm, self.head = nn.Conv2d(3, 6, 4, 4), nn.LayerNorm(6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            t = self.stem(x).flatten(2).mT
            t = self.norm(torch.take_along_dim(t, torch.arange(12)[None, :, None].expand(len(t), 12, 6), 1))
            scores: Tensor = self.head(t.relu().mean(1))
            return scores

    torch.manual_seed(0)
    model, x = Unknown().double().eval(), torch.randn(2, 3, 12, 16, dtype=torch.float64)
    assert explain(model, x, target=1).recipe == "grad_cam(layer='stem')"
    with pytest.raises(ValueError, match="layer 'norm'"):
        explain(model, x, target=1, layer="norm")
    found = explain(model, x, "hires_cam", target=1, layer="norm", layout="tokens", grid=(3, 4)).values
    maps, grads = map(tokens(0, 3, 4), seen(model, x, "norm", 1))
    torch.testing.assert_close(found, (maps * grads).sum(1, keepdim=True), rtol=1e-10, atol=1e-12)
