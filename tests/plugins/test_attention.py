"""Methods of attention equal what loops make of the shares of a transformer that is written out by hand."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nets import randomized
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from cnnviz import explain, gradient, rule
from cnnviz_plugins.attributions.attention import _propagated, _rolled_out
from cnnviz.formulas import Attentions

timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")

METHODS = ("attention_rollout", "transformer_attribution", "grad_sam", "legrad")


def exact(*values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_rollout_of_two_layers_in_closed_form() -> None:
    a, b = 0.25, 0.125  # what a token takes of the other one
    shares = tuple(exact([1 - each, each], [each, 1 - each])[None, None] for each in (a, b))
    attentions = Attentions(shares, (), exact([1.0, 0.0]))
    rolled = _rolled_out(attentions, "mean", 0.0)
    # half of each step stays: tokens swap a/2 and b/2, so the class token keeps (1 - a/2)(1 - b/2) + ab/4
    kept = (1 - a / 2) * (1 - b / 2) + a * b / 4
    assert torch.equal(rolled, exact([kept, 1 - kept]))


def test_chefer_of_two_layers_in_closed_form() -> None:
    first, second = exact([0.5, 0.5], [0.25, 0.75]), exact([0.75, 0.25], [0.5, 0.5])
    rises, falls = exact([1.0, 2.0], [-1.0, 4.0]), exact([2.0, -8.0], [0.0, 1.0])
    attentions = Attentions(
        (first[None, None], second[None, None]), (rises[None, None], falls[None, None]), exact([1.0, 0.0])
    )
    # E1 = [[1/2, 1], [0, 3]], E2 = [[3/2, 0], [0, 1/2]]; (I + E2)(I + E1) - I, first row: [5/2 * 3/2 - 1, 5/2 * 1]
    assert torch.equal(_propagated(attentions), exact([2.75, 2.5]))


def rollout(shares: list[Tensor], grads: list[Tensor], read: list[int], fuse: str = "mean") -> Tensor:
    items, heads, count, _ = shares[0].shape
    result = []
    for item in range(items):
        joint = [[float(row == column) for column in range(count)] for row in range(count)]
        for each in shares:
            of_heads = [each[item, head].tolist() for head in range(heads)]
            pick: Callable[[list[float]], float] = {"mean": lambda v: sum(v) / heads, "max": max, "min": min}[fuse]
            step = [
                [0.5 * pick([of[row][column] for of in of_heads]) + 0.5 * (row == column) for column in range(count)]
                for row in range(count)
            ]
            step = [[value / sum(row) for value in row] for row in step]
            joint = [
                [sum(row[k] * joint[k][column] for k in range(count)) for column in range(count)] for row in step
            ]
        result.append([sum(joint[row][column] for row in read) / len(read) for column in range(count)])
    return torch.tensor(result, dtype=torch.float64)


def chefer(shares: list[Tensor], grads: list[Tensor], read: list[int]) -> Tensor:
    items, _, count, _ = shares[0].shape
    result = []
    for item in range(items):
        joint = torch.eye(count, dtype=torch.float64)
        for each, grad in zip(shares, grads, strict=True):
            joint = joint + torch.einsum("hij,jk->ik", (each[item] * grad[item]).clamp(min=0), joint) / each.shape[1]
        result.append(sum(joint[row] - torch.eye(count)[row] for row in read) / len(read))
    return torch.stack(result)


def sam(shares: list[Tensor], grads: list[Tensor], read: list[int]) -> Tensor:
    total = sum(torch.einsum("nhij,nhij->nj", each, grad.clamp(min=0)) for each, grad in zip(shares, grads, strict=True))
    return total / (len(shares) * shares[0].shape[1] * shares[0].shape[2])


SLOW = {"attention_rollout": rollout, "transformer_attribution": chefer, "grad_sam": sam}


@contextmanager
def recorded() -> Iterator[list[Tensor]]:
    """The shares of every attention that torch computes at once, by another function in its place."""
    found: list[Tensor] = []

    def attend(query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, dropout_p: float = 0.0,
               is_causal: bool = False, scale: float | None = None, **_: Any) -> Tensor:  # fmt: skip
        assert not dropout_p and not is_causal
        scores = torch.einsum("nhid,nhjd->nhij", query, key) * (scale or query.shape[-1] ** -0.5)
        scores = scores if attn_mask is None else scores + attn_mask
        found.append(scores.exp() / scores.exp().sum(-1, keepdim=True))
        return torch.einsum("nhij,nhjd->nhid", found[-1], value)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "scaled_dot_product_attention", attend)
        yield found


class Logits(nn.Module):
    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x).logits


def hugging(attention: str = "sdpa") -> nn.Module:
    sizes = {"image_size": 48, "patch_size": 16, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
    config = transformers.ViTConfig(intermediate_size=24, num_labels=5, attn_implementation=attention, **sizes)
    return Logits(transformers.ViTForImageClassification(config))


def of_timm(name: str, fused: bool = True, **settings: Any) -> nn.Module:
    before = timm.layers.use_fused_attn()
    timm.layers.set_fused_attn(fused)
    try:
        sizes = {"depth": 2, "embed_dim": 24, "num_heads": 3, "num_classes": 5}
        return timm.create_model(name, **sizes | settings)
    finally:
        timm.layers.set_fused_attn(bool(before))


def like_trained(model: nn.Module) -> nn.Module:
    """The model in float64, with attentions that differ between places and heads."""
    generator = torch.Generator().manual_seed(3)
    for values in model.double().eval().parameters():
        with torch.no_grad():
            noise = torch.randn(values.shape, generator=generator, dtype=torch.float64)
            values.copy_(noise * (0.3 if values.ndim > 1 else 0.1) + (0 if values.ndim > 1 else values))
    return model


PATCHES = list(range(1, 10))
NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int], int, tuple[int, int], list[int]]] = {
    "torchvision": (lambda: VisionTransformer(48, 16, 2, 3, 24, 24, num_classes=5), (48, 48), 1, (3, 3), [0]),
    "timm": (lambda: of_timm("vit_tiny_patch16_224", img_size=(32, 48)), (32, 48), 1, (2, 3), [0]),
    "timm, averaged": (
        lambda: of_timm("vit_tiny_patch16_224", img_size=48, global_pool="avg"), (48, 48), 1, (3, 3), PATCHES
    ),
    "distilled": (lambda: of_timm("deit_tiny_distilled_patch16_224", img_size=48), (48, 48), 2, (3, 3), [0, 1]),
    "registers": (lambda: of_timm("vit_small_patch14_reg4_dinov2", img_size=28), (28, 28), 5, (2, 2), [0]),
    "hugging face": (hugging, (48, 48), 1, (3, 3), [0]),
}  # fmt: skip


def made(name: str) -> tuple[nn.Module, Tensor]:
    build, size, *_ = NETS[name]
    return like_trained(build()), torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize("name", NETS)
def test_maps_equal_what_loops_make_of_shares_that_were_recorded_by_hand(name: str) -> None:
    (model, x), (_, _, extra, grid, read) = made(name), NETS[name]
    target = torch.tensor([2, 0])
    with recorded() as shares:
        score = model(x.clone().requires_grad_()).gather(1, target[:, None]).sum()
    grads = list(torch.autograd.grad(score, shares))
    shares = [each.detach() for each in shares]
    for method, slow in SLOW.items():
        expected = slow(shares, grads, read)[:, extra:].reshape(2, 1, *grid)
        values = explain(model, x, method, target=target).values
        torch.testing.assert_close(values, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("fuse", ["max", "min"])
def test_heads_are_fused_in_other_ways(fuse: str) -> None:
    model, x = made("timm")
    with recorded() as shares:
        model(x)
    expected = rollout(shares, [], [0], fuse)[:, 1:].reshape(2, 1, 2, 3)
    torch.testing.assert_close(explain(model, x, "attention_rollout", fuse=fuse).values, expected, rtol=1e-9, atol=0)
