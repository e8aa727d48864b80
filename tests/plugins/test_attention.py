"""Methods of attention equal what loops make of the shares of a transformer that is written out by hand."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nets import randomized
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.models import VisionTransformer

from cnnviz import attributions, explain, gradient, rule
from cnnviz.formulas import Attentions
from cnnviz.objectives import Objective
from cnnviz_plugins.attributions.attention import _propagated, _Rollout

timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")

METHODS = ("attention_rollout", "transformer_attribution", "grad_sam", "legrad")


def exact(*values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_rollout_of_two_layers_in_closed_form() -> None:
    a, b = 0.25, 0.125  # what a token takes of the other one
    shares = tuple(exact([1 - each, each], [each, 1 - each])[None, None] for each in (a, b))
    attentions = Attentions(shares, (), exact([1.0, 0.0]))
    rolled = _Rollout("mean", 0.0)(attentions)
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
            joint = [[sum(row[k] * joint[k][column] for k in range(count)) for column in range(count)] for row in step]
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
    total = sum(
        torch.einsum("nhij,nhij->nj", each, grad.clamp(min=0)) for each, grad in zip(shares, grads, strict=True)
    )
    return total / (len(shares) * shares[0].shape[1] * shares[0].shape[2])


SLOW = {"attention_rollout": rollout, "transformer_attribution": chefer, "grad_sam": sam}


@contextmanager
def recorded() -> Iterator[list[Tensor]]:
    """The shares of every attention that torch computes at once, by another function in its place."""
    found: list[Tensor] = []

    def attend(query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, dropout_p: float = 0.0,
               is_causal: bool = False, scale: float | None = None, **_: Any) -> Tensor:  # fmt: skip
        assert (dropout_p, is_causal) == (0, False)
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


def test_the_lowest_shares_are_discarded() -> None:
    shares = exact([0.5, 0.1, 0.4], [0.2, 0.7, 0.1], [0.3, 0.6, 0.1])[None, None]
    attentions = Attentions((shares,), (), exact([1.0, 0.0, 0.0]))
    # three of nine numbers are lowest, all those of 0.1; the class token's row becomes (1.5, 0, 0.4) / 1.9
    torch.testing.assert_close(_Rollout("mean", 0.34)(attentions), exact([1.5 / 1.9, 0, 0.4 / 1.9]))
    alone = Attentions((exact([0.1, 0.9], [0.5, 0.5])[None, None],), (), exact([1.0, 0.0]))
    torch.testing.assert_close(_Rollout("mean", 0.5)(alone), exact([1.0 - 0.9 / 2, 0.9 / 2]))  # itself is kept
    with pytest.raises(ValueError, match="discard=1 is no share of the numbers"):
        explain(*made("timm"), "attention_rollout", discard=1)


HEADS: dict[str, tuple[str, Callable[[Any, Tensor], Tensor]]] = {
    "torchvision": ("encoder.layers", lambda model, z: model.heads(model.encoder.ln(z)[:, 0])),
    "timm": ("blocks", lambda model, z: model.head(model.norm(z)[:, 0])),
    "timm, averaged": ("blocks", lambda model, z: model.head(model.fc_norm(z[:, 1:].mean(1)))),
    "distilled": (
        "blocks", lambda model, z: (model.head(model.norm(z)[:, 0]) + model.head_dist(model.norm(z)[:, 1])) / 2
    ),
    "registers": ("blocks", lambda model, z: model.head(model.norm(z)[:, 0])),
    "hugging face": (
        "model.vit.layers", lambda model, z: model.model.classifier(model.model.vit.layernorm(z)[:, 0])
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETS)
def test_legrad_equals_gradients_of_the_head_on_each_blocks_tokens(name: str) -> None:
    (model, x), (_, _, extra, grid, _) = made(name), NETS[name]
    target = torch.tensor([2, 0])
    place, head = HEADS[name]
    outputs: list[Tensor] = []
    handles = [
        block.register_forward_hook(lambda *passed: outputs.append(passed[2]))
        for block in model.get_submodule(place).children()
    ]
    with recorded() as shares:
        model(x.clone().requires_grad_())
    for handle in handles:
        handle.remove()
    maps = []
    for each, tokens in zip(shares, outputs, strict=True):
        score = head(model, tokens).gather(1, target[:, None]).sum()
        (grad,) = torch.autograd.grad(score, each, retain_graph=True)
        maps.append(torch.einsum("nhij->nj", grad.clamp(min=0)) / (each.shape[1] * each.shape[2]))
    expected = (sum(maps) / len(maps))[:, extra:].reshape(2, 1, *grid)
    values = explain(model, x, "legrad", target=target).values
    torch.testing.assert_close(values, expected, rtol=1e-9, atol=1e-14)


@dataclass(frozen=True)
class Value(Objective):
    """One value of the first token of a layer."""

    layer: str

    def __call__(self, seen: Any, /) -> Tensor:
        value: Tensor = seen.layer(self.layer)[:, 0, 2]
        return value


@pytest.mark.parametrize("layer", ["norm", "blocks.1"])
def test_legrad_asks_each_block_about_a_layer_too(layer: str) -> None:
    model, x = made("timm")
    outputs: list[Tensor] = []
    handles = [block.register_forward_hook(lambda *passed: outputs.append(passed[2])) for block in model.blocks]
    with recorded() as shares:
        model(x.clone().requires_grad_())
    for handle in handles:
        handle.remove()
    scores = [(model.norm(tokens) if layer == "norm" else tokens)[:, 0, 2].sum() for tokens in outputs]
    grads = [torch.autograd.grad(*each, retain_graph=True)[0] for each in zip(scores, shares, strict=True)]
    maps = sum(torch.einsum("nhij->nj", grad.clamp(min=0)) / (grad.shape[1] * grad.shape[2]) for grad in grads) / 2
    values = explain(model, x, "legrad", target=Value(layer)).values
    torch.testing.assert_close(values, maps[:, 1:].reshape(2, 1, 2, 3), rtol=1e-9, atol=1e-14)


def answers(model: nn.Module, x: Tensor, **options: Any) -> list[Tensor]:
    return [explain(model, x, method, **{"target": torch.tensor([2, 0]), **options}).values for method in METHODS]


@pytest.mark.parametrize("name", ["timm", "hugging face"])
def test_attention_in_single_steps_gives_the_same_as_in_one(name: str) -> None:
    fused, x = made(name)
    steps = like_trained(
        of_timm("vit_tiny_patch16_224", False, img_size=(32, 48)) if name == "timm" else hugging("eager")
    )
    steps.load_state_dict(fused.state_dict())
    rounding = 1e-9 if name == "timm" else 1e-4  # Hugging Face computes a softmax in 32 bits
    for one, other in zip(answers(fused, x), answers(steps, x), strict=True):
        torch.testing.assert_close(one, other, rtol=rounding, atol=rounding * float(one.abs().max()))


class Tokens(nn.Module):
    """A transformer of patches of 4 and a class token, without modules for its blocks; ``attend`` is its attention."""

    def __init__(self, attend: Callable[..., Tensor], layers: int = 2, rank: int = 2, classes: int = 5):
        super().__init__()
        self.attend, self.layers = attend, layers
        self.patches = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[rank](3, 8, 4, 4)
        self.first = nn.Parameter(torch.zeros(1, 1, 8))
        self.parts = nn.Linear(8, 24)
        self.head = nn.Linear(8, classes)
        randomized(self, 2)

    def tokens(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).mT
        return torch.cat([self.first.expand(len(x), -1, -1), x], 1)

    def operands(self, x: Tensor) -> Any:
        return self.parts(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)

    def block(self, x: Tensor) -> Tensor:
        return x + 0.5 * self.attend(*self.operands(x)).transpose(1, 2).flatten(2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.tokens(x)
        for _ in range(self.layers):
            x = self.block(x)
        scores: Tensor = self.head(x[:, 0].tanh())
        return scores


def picture(*size: int) -> Tensor:
    return torch.randn(2, 3, *(size or (8, 12)), generator=torch.Generator().manual_seed(1)).double()


def by_hand(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return ((query @ key.mT) / 2).softmax(-1) @ value


def spelled_by_einsum(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    scores = torch.einsum("... i d, ...jd -> ...ij", query * 0.5, key)
    return torch.einsum("bhij,bhjd->bhid", F.softmax(scores, dim=3), value)


def with_queries_last(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    shares = torch.special.softmax(torch.matmul(key, query.mT).mul_(0.5), dim=-2)
    return torch.matmul(value.mT, shares).mT


def with_heads_last(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    scores = torch.einsum("bhid,bhjd->bijh", query, key) / 2
    return torch.einsum("bijh,bhjd->bhid", scores.softmax(2), value)


def with_heads_in_the_batch(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    query, key, value = (each.flatten(0, 1) for each in (query, key, value))
    zero = torch.zeros(1, 1, 1, dtype=query.dtype)
    shares = torch.baddbmm(zero, query, key.mT, alpha=0.5).softmax(-1)
    return torch.bmm(F.dropout(shares, 0.3, False).to(value.dtype), value).unflatten(0, (2, 2))


def with_heads_before_the_batch(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    query, key, value = (each.transpose(0, 1).flatten(0, 1) for each in (query, key, value))
    return torch.bmm(torch.bmm(query, key.mT).div(2).softmax(-1), value).unflatten(0, (2, -1)).transpose(0, 1)


def with_scores_that_constants_mix(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    heads = torch.eye(2, dtype=query.dtype)
    return torch.einsum("bhij,hg->bgij", query @ key.mT / 2, heads).softmax(-1) @ value


def checkpointed(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return checkpoint(at_once, query, key, value, use_reentrant=False)  # type: ignore[no-any-return]


def at_once(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(query, key, value)


@pytest.mark.parametrize(
    "attend",
    [
        *(at_once, checkpointed, spelled_by_einsum, with_queries_last, with_heads_last, with_heads_in_the_batch),
        *(with_heads_before_the_batch, with_scores_that_constants_mix),
    ],
)
def test_attention_is_found_however_it_is_spelled(attend: Callable[..., Tensor]) -> None:
    for method in METHODS[:3]:
        expected, found = (explain(Tokens(each), picture(), method, target=1).values for each in (by_hand, attend))
        assert expected.shape == (2, 1, 2, 3)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-14)


def biased(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return ((query @ key.mT) / 2 + value.sum(-1).sin()[..., None, :]).softmax(-1) @ value


def biased_at_once(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(query, key, value, attn_mask=value.sum(-1).sin()[..., None, :])


def test_a_bias_may_be_made_of_the_input() -> None:
    recorded_by_hand: list[Tensor] = []

    def keeping(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        scores = ((query @ key.mT) / 2 + value.sum(-1).sin()[..., None, :]).exp()
        recorded_by_hand.append(scores / scores.sum(-1, keepdim=True))
        return recorded_by_hand[-1] @ value

    score = Tokens(keeping)(picture().requires_grad_())[:, 1].sum()
    grads = list(torch.autograd.grad(score, recorded_by_hand))
    shares = [each.detach() for each in recorded_by_hand]
    for attend in (biased, biased_at_once):
        for method, slow in SLOW.items():
            values = explain(Tokens(attend), picture(), method, target=1).values
            expected = slow(shares, grads, [0])[:, 1:].reshape(2, 1, 2, 3)
            torch.testing.assert_close(values, expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("size", [(20,), (4, 8, 4)])
def test_signals_and_volumes_have_grids_of_their_own_rank(size: tuple[int, ...]) -> None:
    model = Tokens(at_once, rank=len(size))
    values = explain(model, picture(*size), "attention_rollout").values
    assert values.shape == (2, 1, *(side // 4 for side in size))
    assert values.flatten(1).std(1).all()


def test_a_causal_mask_is_part_of_the_shares() -> None:
    def causal(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(query, key, value, is_causal=True)

    # the class token is the first one, and so it reads itself alone
    with pytest.warns(UserWarning, match="zero everywhere"):
        assert not explain(Tokens(causal), picture(), "attention_rollout").values.any()


def test_inputs_that_python_reads_apart_are_asked_one_by_one() -> None:
    class Reading(Tokens):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x * 2 if x.max() > 2.45 else x)

    model, x = Reading(by_hand), picture()
    assert (x.flatten(1).amax(1) > 2.45).tolist().count(True) == 1
    for method in METHODS[:3]:
        together = explain(model, x, method, target=1).values
        apart = [explain(model, x[item : item + 1], method, target=1).values for item in (0, 1)]
        torch.testing.assert_close(together, torch.cat(apart), rtol=1e-10, atol=1e-15)


def test_tokens_that_cannot_be_followed_are_laid_out_as_it_is_said() -> None:
    class Lost(Tokens):
        def __init__(self, attend: Callable[..., Tensor]):
            super().__init__(attend)
            self.patches.register_forward_hook(lambda *passed: torch.fft.ifft(torch.fft.fft(passed[2])).real)

    model, x = Tokens(by_hand), picture()
    with pytest.raises(ValueError, match=r"attention 1 of 2 in Lost can't be followed through .* say where its tokens"):
        explain(Lost(by_hand), x, "grad_sam", target=1)
    for grid in ((2, 3), "2x3"):
        said = explain(Lost(by_hand), x, "grad_sam", target=1, grid=grid, extra=1).values
        torch.testing.assert_close(said, explain(model, x, "grad_sam", target=1).values)
    heads_first = Lost(with_heads_before_the_batch)  # of which nobody can tell that they are not the items
    said = explain(heads_first, x, "grad_sam", target=1, grid=(2, 3), extra=1).values
    torch.testing.assert_close(said, explain(model, x, "grad_sam", target=1).values)
    with pytest.raises(ValueError, match="7 tokens without 1 extra ones are no grid of 5 x 5"):
        explain(Lost(by_hand), x, "grad_sam", target=1, grid=(5, 5), extra=1)


def windowed(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    split = [each[:, :, 1:].unflatten(2, (2, 3)) for each in (query, key, value)]
    return torch.cat([query[:, :, :1], at_once(*split).flatten(2, 3)], 2)


def padded(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    grids = [
        F.pad(each[:, :, 1:].unflatten(2, (2, 3)), (0, 0, 0, 1, 0, 1)).flatten(2, 3) for each in (query, key, value)
    ]
    return torch.cat([query[:, :, :1], at_once(*grids).unflatten(2, (3, 4))[:, :, :2, :3].flatten(2, 3)], 2)


def pooled(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return at_once(query, key[:, :, ::2], value[:, :, ::2])


def of_channels(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return at_once(query.mT, key.mT, value.mT).mT


def linear(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return query.softmax(-1) @ (key.softmax(-2).mT @ value)


def gated(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    shares = (query @ key.mT).softmax(-1)
    return (shares * 2) @ value


def talking(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return torch.einsum("bhij,hg->bgij", (query @ key.mT).softmax(-1), torch.eye(2).double()) @ value


def summed_over_queries(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return (query @ key.mT).softmax(-1).mT @ value


def without_dimension(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    query, key, value = (each.flatten(0, 1) for each in (query, key, value))
    with warnings.catch_warnings(action="ignore"):
        shares = F.softmax(query @ key.mT)
    return (shares @ value).unflatten(0, (2, 2))


def crossed(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return at_once(torch.ones_like(query), key, value)


def summed(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return ((query @ key.mT).softmax(-1)[..., None] * value[:, :, None]).sum(-2)


def beside(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return at_once(query, key, value) + at_once(key, query, value)


def between_branches(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return at_once(query, at_once(query, key, value), value)


REFUSED: dict[Callable[..., Tensor], str] = {
    windowed: "attention 1 of 2 in Tokens is one within windows",
    padded: "attention 1 of 2 in Tokens is cut into windows, padded, or holds a part of the grid",
    pooled: "has 7 queries and 4 keys, as a cross-attention, one that pools, and one with bias_k",
    of_channels: "attention 1 of 2 in Tokens compares channels and not places",
    linear: "no attention is found between the input of Tokens and its score",
    gated: "is changed by mul behind its softmax",
    summed_over_queries: "attention 1 of 2 in Tokens does not add up to 1 over the values that it weighs",
    without_dimension: "attention 1 of 2 in Tokens does not add up to 1 over the values that it weighs",
    talking: "is changed by einsum behind its softmax",
    crossed: "has queries or keys that are not computed from the input",
    summed: "is not multiplied with values by a product of matrices",
    beside: "attention 2 of 4 in Tokens does not follow the one before it, but runs beside it",
    between_branches: "attention 2 of 4 in Tokens has queries and keys of two branches",
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("attend", REFUSED, ids=lambda attend: attend.__name__)
def test_what_is_no_chain_of_self_attentions_is_refused(attend: Callable[..., Tensor], method: str) -> None:
    with pytest.raises(ValueError, match=REFUSED[attend]) as refusal:
        explain(Tokens(attend), picture(), method, target=1)
    assert "\n" not in str(refusal.value)
    assert "grad_cam" in str(refusal.value)


class Reused(Tokens):
    def forward(self, x: Tensor) -> Tensor:
        x = self.tokens(x)
        query, key, value = self.operands(x)
        shares = (query @ key.mT).softmax(-1)
        for _ in range(2):
            x = x + (shares @ value).transpose(1, 2).flatten(2)
            value = self.operands(x)[2]
        return self.head(x[:, 0])


class Frames(Tokens):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.tokens(x.flatten(0, 1)))[:, 0].unflatten(0, x.shape[:2]).mean(1))


class WithoutGradients(Tokens):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            before = self.block(self.tokens(x))
        return self.head(self.block(before + self.tokens(x))[:, 0])


class Beside(Tokens):
    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        both = torch.stack([x, other], 1).flatten(0, 1) if self.layers == 1 else torch.cat([x, other])
        one, two = self.head(self.block(self.tokens(both))[:, 0]).tensor_split(2)
        return one * two


UNFIT: dict[str, tuple[nn.Module, tuple[int, ...], str]] = {
    "reused": (Reused(by_hand), (2, 3, 8, 12), "is used again by a later block"),
    "frames": (Frames(by_hand), (2, 4, 3, 8, 12), "is one within each frame or channel of the input by itself"),
    "without gradients": (WithoutGradients(by_hand), (2, 3, 8, 12), "is computed from another one that carries no"),
    "behind another input": (Beside(by_hand), (1, 3, 8, 12), "mixes the items of the batch, or has those of another"),
    "stacked on another input": (Beside(by_hand, 1), (1, 3, 8, 12), "mixes the items of the batch, or has those of"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_attentions_of_something_else_than_one_pictures_tokens_are_refused(name: str) -> None:
    model, size, reason = UNFIT[name]
    x = torch.randn(size, generator=torch.Generator().manual_seed(1)).double()
    with pytest.raises(ValueError, match=f"attention 1 of 1 in {type(model).__name__} {reason}"):
        explain(model, (x, x) if isinstance(model, Beside) else x, "attention_rollout", target=1)


@pytest.mark.parametrize("settings", [{"add_bias_kv": True}, {"add_zero_attn": True}])
def test_attention_with_more_keys_than_tokens_is_refused(settings: dict[str, bool]) -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=True, **settings).double()

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        tokens = query.transpose(1, 2).flatten(2)
        return attention(tokens, tokens, tokens)[0].unflatten(2, (2, 4)).transpose(1, 2)

    with pytest.raises(
        ValueError, match="has 7 queries and 8 keys, as a cross-attention, one that pools, and one with bias_k"
    ):
        explain(Tokens(attend), picture(), "attention_rollout")


def test_legrad_needs_blocks_that_the_score_is_read_from_one_after_the_other() -> None:
    class Split(Tokens):
        """Attentions that are modules, and additions that are not, as many write them."""

        def __init__(self) -> None:
            super().__init__(by_hand)
            self.inner = nn.ModuleList(nn.MultiheadAttention(8, 2, batch_first=True) for _ in range(2)).double()

        def forward(self, x: Tensor) -> Tensor:
            x = self.patches(x).flatten(2).mT
            for attention in self.inner:
                x = x + attention(x, x, x)[0]
            return self.head(x.mean(1))

    for model in (Tokens(by_hand), Split()):
        with pytest.raises(ValueError, match=f"{type(model).__name__} is not made of blocks of one kind"):
            explain(model, picture(), "legrad", target=1)
    assert explain(Tokens(by_hand, layers=1), picture(), "legrad", target=1).values.any()  # the model's own score


def test_formulas_print_alike_and_are_equal_where_they_are_the_same() -> None:
    one, other = (attributions["attention_rollout"](fuse="max", grid="2x3") for _ in range(2))
    assert one == other
    assert str(one) == "attention_rollout(fuse='max', grid='2x3')"
    assert "0x" not in str(one.method.function)


@pytest.mark.parametrize("frozen", [False, True])
def test_torchs_own_encoder_is_seen_where_it_would_be_computed_at_once(frozen: bool) -> None:
    class Encoded(Tokens):
        def __init__(self) -> None:
            super().__init__(by_hand)
            layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            like_trained(self.encoder)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.encoder(self.patches(x).flatten(2).mT).mean(1))

    model, x = Encoded().requires_grad_(not frozen), picture()
    with recorded() as shares, torch.enable_grad():
        score = model(x.clone().requires_grad_())[:, 1].sum()
    grads = list(torch.autograd.grad(score, shares))
    for method, slow in SLOW.items():
        values = explain(model, x, method, target=1).values
        expected = slow([each.detach() for each in shares], grads, list(range(6))).reshape(2, 1, 2, 3)
        torch.testing.assert_close(values, expected, rtol=1e-9, atol=1e-14)


def test_one_forward_pass_serves_all_methods_of_one_score() -> None:
    model, x = made("timm")
    passes: list[int] = []
    model.blocks[0].register_forward_hook(lambda *passed: passes.append(len(passed[2])))
    explain(model, x, ["attention_rollout", "transformer_attribution", "grad_sam", "gradient"], target=1)
    assert passes == [2]


@pytest.mark.parametrize("operation", [F.softmax, torch.matmul, F.scaled_dot_product_attention])
@pytest.mark.parametrize("name", ["torchvision", "timm", "hugging face"])
def test_rules_reach_what_attention_consists_of(name: str, operation: Any) -> None:
    model, x = made(name)
    met: list[tuple[int, ...]] = []

    @rule(operation, name="counting")
    def counting(call: Any, grad: Tensor) -> tuple[Tensor, ...]:
        met.append(tuple(call.output.shape[-2:]))
        return call.vjps(grad)

    plain, counted = (explain(model, x, each, target=1).values for each in (gradient(), gradient(rule=counting)))
    count = 1 + NETS[name][3][0] * NETS[name][3][1]
    shares, attended = (count, count), (count, 8)
    expected = {F.softmax: [shares], torch.matmul: [attended, shares], F.scaled_dot_product_attention: [attended]}
    assert met == expected[operation] * 2
    torch.testing.assert_close(counted, plain, rtol=1e-9, atol=1e-14)


def test_rules_on_the_whole_and_on_its_parts_act_alike_together_and_apart() -> None:
    model, x = made("timm")
    halves = [
        rule(operation, name=f"half of {operation.__name__}")(
            lambda call, grad: tuple(each / 2 for each in call.vjps(grad))
        )
        for operation in (F.scaled_dot_product_attention, F.softmax)
    ]
    formulas = [*(gradient(rule=half) for half in halves), "grad_sam"]
    together = explain(model, x, formulas, target=1)
    for formula, of_all in zip(formulas, together.values(), strict=True):
        alone = explain(model, x, formula, target=1).values
        torch.testing.assert_close(of_all.values, alone, rtol=1e-9, atol=1e-14)
