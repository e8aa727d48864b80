"""The automatic layer descends from the input, reaches the score, lies over the input's grid. Others are refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cnnviz
from cnnviz import explain
from cnnviz.formulas import MapWarning


def pictures(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def seeded(kind: type[nn.Module], *args: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind(*args).double().eval()


def weighted(grad: Tensor, maps: Tensor) -> Tensor:
    """Grad-CAM, (N, 1, h, w), of a gradient and an activation (N, C, h, w)."""
    return (grad.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True).detach()


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.softmax = nn.Linear(16, 48), nn.Softmax(-1)

    def forward(self, t: Tensor) -> Tensor:
        q, k, v = self.qkv(t).view(len(t), -1, 3, 2, 8).permute(2, 0, 3, 1, 4)
        mixed: Tensor = (self.softmax(q @ k.mT) @ v).transpose(1, 2).flatten(2)
        return mixed


class Hybrid(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 4, 4), nn.ReLU())
        self.attn, self.head = Attention(), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.attn(self.stem(x).flatten(2).mT).mean(1))
        return scores


class Position(nn.Module):
    def forward(self, mask: Tensor) -> Tensor:
        y = mask.cumsum(2)
        return torch.cat([y.sin(), y.cos()], 1)


class Detr(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.position = nn.Sequential(nn.Conv2d(3, 2, 3, 2, 1), nn.ReLU()), Position()
        self.mix, self.head = nn.Linear(2, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        f = self.backbone(x)
        p = self.position(torch.ones_like(f[:, :1]))
        scores: Tensor = self.head(self.mix((f + p).flatten(2).mT).relu().mean(1))
        return scores


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.classifier, self.aux = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        f = self.body(x)
        return {"out": self.classifier(f), "aux": self.aux(f)}


class Segmenter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": F.interpolate(self.net(x), scale_factor=2.0)}


def test_the_matrix_of_an_attention_is_no_map() -> None:
    model, x = seeded(Hybrid), pictures(1, 3, 32, 48)
    found = explain(model, x, target=1)
    assert (found.recipe, found.values.shape) == ("grad_cam(layer='stem')", (1, 1, 8, 12))
    for layer, reason in {
        "attn.softmax": r"gives \(1, 2, 96, 96\), which has the same places twice, as the matrix of an attention",
        "attn.qkv": r"gives \(1, 96, 48\), which is cut into queries, keys and values, or still into the heads",
        "attn": r"gives \(1, 96, 16\), which is cut into queries, keys and values, or still into the heads",
    }.items():
        for method in ("grad_cam", "score_cam", "ablation_cam", "eigen_cam"):
            with pytest.raises(ValueError, match=f"layer '{layer}' {reason}.*; choose a layer before or behind it"):
                explain(model, x, method, target=1, layer=layer)
    tokens = explain(model, x, "hires_cam", target=1, layer="attn", layout="tokens", grid="8x12")
    maps = model.attn(model.stem(x).flatten(2).mT)
    by_hand = (maps * model.head.weight[1] / 96).sum(2).view(1, 1, 8, 12)
    torch.testing.assert_close(tokens.values, by_hand.detach(), rtol=1e-10, atol=1e-12)


def test_a_table_of_positions_sees_no_picture() -> None:
    model = seeded(Detr)
    one, other = (explain(model, pictures(1, 3, 16, 16, seed=seed), "eigen_cam", target=1) for seed in (1, 2))
    assert one.recipe == "eigen_cam(layer='backbone')"
    assert not torch.allclose(one.values, other.values)
    for method in ("grad_cam", "eigen_cam", "ablation_cam", "score_cam"):
        with pytest.raises(ValueError, match="layer 'position' sees nothing of the input that is explained"):
            explain(model, pictures(1, 3, 16, 16), method, target=1, layer="position")


@pytest.mark.parametrize("method", ["grad_cam", "ablation_cam", "score_cam", "layer_cam"])
def test_a_branch_that_the_score_does_not_use(method: str) -> None:
    model, x = seeded(TwoHeads), pictures(1, 3, 12, 16)

    def score(output: dict[str, Tensor]) -> Tensor:
        return output["out"][:, 1].mean((1, 2))

    assert explain(model, x, method, target=score).recipe == f"{method}(layer='body')"
    with pytest.raises(ValueError, match="the score does not depend on layer 'aux'"):
        explain(model, x, method, target=score, layer="aux")
    assert explain(model, x, method, target=lambda o: o["aux"][:, 1].mean((1, 2)), layer="body").values.any()


def test_the_map_of_the_scores_is_passed_over() -> None:
    model, x = seeded(Segmenter), pictures(1, 3, 12, 12)
    target = lambda o: o["out"][:, 2].mean((1, 2))  # noqa: E731  # as users write it
    assert explain(model, x, target=target).recipe == "grad_cam(layer='net.1')"
    with pytest.warns(MapWarning, match="layer 'net' holds the scores themselves, so that its map explains a class by"):
        named = explain(model, x, target=target, layer="net")
    torch.testing.assert_close(named.values, model.net(x)[:, 2:3].detach() / 144)
    plain = model.net
    assert explain(plain, x, target=lambda o: o[:, 2].mean((1, 2))).recipe == "grad_cam(layer='1')"
    whole = explain(plain, x, target=lambda o: o.mean((1, 2, 3)))  # of all of its channels it is a map as any other
    assert whole.recipe == "grad_cam(layer='2')"


class Branches(nn.Module):
    """A detector whose score is made of two maps: of classes, and of how close the middle of the object is."""

    def __init__(self, last: str) -> None:
        super().__init__()
        self.body, self.last = nn.Conv2d(3, 8, 3, stride=2, padding=1), last
        self.of_classes, self.classes = nn.Conv2d(8, 6, 3, padding=1), nn.Conv2d(6, 4, 1)
        self.of_boxes, self.centredness = nn.Conv2d(8, 6, 3, padding=1), nn.Conv2d(6, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        f = self.body(x).relu()
        ways = {"classes": self.classes, "centredness": self.centredness}
        found = {}
        for name in sorted(ways, key=lambda each: each == self.last):
            before = self.of_classes if name == "classes" else self.of_boxes
            found[name] = ways[name](before(f).relu()).flatten(2).sigmoid()
        scores: Tensor = (found["classes"] * found["centredness"]).sqrt()
        return scores


@pytest.mark.parametrize("last", ["classes", "centredness"])
def test_of_two_branches_the_one_that_tells_classes_apart_is_taken(last: str) -> None:
    model, x = seeded(Branches, last), pictures(1, 3, 12, 16)
    assert explain(model, x, target=lambda o: o[:, 2, 20]).recipe == "grad_cam(layer='of_classes')"
    assert explain(model, x, target=lambda o: o[:, 2].mean(1), layer="of_boxes").values.any()


class Pyramid(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.head, self.last = nn.Conv2d(8, 6, 1), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        f = self.body(x).relu()
        maps = [self.head(f), self.head(F.adaptive_avg_pool2d(f, 1))]
        scores: Tensor = self.last(torch.cat([m.flatten(2) for m in maps], 2).mean(2))
        return scores


def test_a_head_that_runs_on_maps_of_several_sizes() -> None:
    model, x = seeded(Pyramid), pictures(2, 3, 16, 16)
    found = explain(model, x, "hires_cam", target=1)
    assert found.recipe == "hires_cam(layer='head', call=1)"
    by_hand = torch.einsum("nkhw,k->nhw", model.head(model.body(x).relu()), model.last.weight[1] / 65)[:, None]
    torch.testing.assert_close(found.values, by_hand.detach(), rtol=1e-10, atol=1e-12)


def test_what_is_padded_covers_more_than_the_picture_until_a_convolution_reads_it() -> None:
    layers = nn.Conv2d(3, 4, 1), nn.ZeroPad2d((1, 2, 1, 2)), nn.ReLU(), nn.Conv2d(4, 4, 4), nn.ReLU(), nn.Flatten()
    model = nn.Sequential(*layers, nn.Linear(256, 3)).double().eval()
    x = pictures(2, 3, 8, 8, seed=1)
    with pytest.raises(ValueError, match="is cut into windows, padded, or holds a part of the grid"):
        explain(model, x, "grad_cam", layer="2", target=1)
    assert explain(model, x, "grad_cam", target=1).recipe == "grad_cam(layer='4')"


class Siamese(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.net, self.how = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()), how

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        if self.how == "two calls":
            fa, fb = self.net(a).mean((2, 3)), self.net(b).mean((2, 3))
        elif self.how == "other first":
            fb, fa = self.net(b).mean((2, 3)), self.net(a).mean((2, 3))
        elif self.how == "cat":
            fa, fb = self.net(torch.cat([a, b])).mean((2, 3)).chunk(2)
        elif self.how == "cat, other first":
            fb, fa = self.net(torch.cat([b, a])).mean((2, 3)).chunk(2)
        else:
            fa, fb = self.net(torch.stack([a, b], 1).flatten(0, 1)).mean((2, 3)).view(len(a), 2, -1).unbind(1)
        return torch.cosine_similarity(fa, fb)


WAYS = {"two calls": ", call=1", "other first": ", call=2", "cat": "", "cat, other first": "", "stack": ""}


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("how", WAYS)
def test_of_a_siamese_network_the_explained_picture_is_explained(how: str, count: int) -> None:
    model, a, b = seeded(Siamese, how), pictures(count, 3, 8, 8, seed=1), pictures(count, 3, 8, 8, seed=2)
    fa, fb = (model.net(each).detach().requires_grad_() for each in (a, b))
    (ga,) = torch.autograd.grad(torch.cosine_similarity(fa.mean((2, 3)), fb.mean((2, 3))).sum(), [fa])
    found = explain(model, (a, b), ("grad_cam", "activation"), target=None, layer="net")
    torch.testing.assert_close(found["grad_cam"].values, weighted(ga, fa), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found["activation"].values, fa.detach())
    assert explain(model, (a, b), "grad_cam").recipe == f"grad_cam(layer='net'{WAYS[how]})"

    # the score drop of each channel, by loops
    with torch.no_grad():
        drops = torch.zeros(count, 8, dtype=torch.float64)
        score = torch.cosine_similarity(fa.mean((2, 3)), fb.mean((2, 3)))
        for channel in range(8):
            without = fa.detach().clone()
            without[:, channel] = 0
            drops[:, channel] = score - torch.cosine_similarity(without.mean((2, 3)), fb.mean((2, 3)))
        expected = torch.einsum("nc,nchw->nhw", drops / score.abs()[:, None], fa)[:, None]
    ablated = explain(model, (a, b), "ablation_cam", layer="net").values
    torch.testing.assert_close(ablated, expected, rtol=1e-9, atol=1e-12)


def test_a_recurrent_block_adds_up_its_calls() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.block = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
            self.head = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            h = self.stem(x)
            for _ in range(3):
                h = torch.tanh(self.block(h))
            scores: Tensor = self.head(F.avg_pool2d(h, 2).mean((2, 3)))
            return scores

    model, x = seeded(Recurrent), pictures(2, 3, 6, 8)
    h, maps = model.stem(x), []
    for _ in range(3):
        maps.append(model.block(h).detach().requires_grad_() if not maps else model.block(torch.tanh(maps[-1])))
    score = model.head(F.avg_pool2d(torch.tanh(maps[-1]), 2).mean((2, 3)))[:, 1].sum()
    cams = [weighted(grad, each) for grad, each in zip(torch.autograd.grad(score, maps), maps, strict=True)]
    for call, expected in ((None, sum(cams)), (1, cams[0]), (2, cams[1]), (3, cams[2])):
        found = explain(model, x, target=1, layer="block", call=call)
        torch.testing.assert_close(found.values, expected, rtol=1e-10, atol=1e-12)
    assert explain(model, x, target=1).recipe == "grad_cam(layer='block')"
    for method in ("grad_cam", "score_cam", "activation"):  # a layer may bring its call along
        expected = explain(model, x, method, target=1, layer="block", call=2).values
        for layer, call in ((cnnviz.LayerAt("block", call=2), {}), (cnnviz.LayerAt("block", call=1), {"call": 2})):
            assert torch.equal(explain(model, x, method, target=1, layer=layer, **call).values, expected)


def test_calls_of_different_sizes_add_at_the_size_of_the_input() -> None:
    class Levels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 4, 3, padding=1)
            self.last = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            f = self.body(x).relu()
            levels = [self.head(f), self.head(F.avg_pool2d(f, 2))]
            scores: Tensor = self.last(sum(level.relu().mean((2, 3)) for level in levels))
            return scores

    model, x = seeded(Levels), pictures(1, 3, 8, 12)
    f = model.body(x).relu()
    maps = [model.head(each).detach().requires_grad_() for each in (f, F.avg_pool2d(f, 2))]
    score = model.last(sum(each.relu().mean((2, 3)) for each in maps))[:, 1].sum()
    large, small = (weighted(grad, each) for grad, each in zip(torch.autograd.grad(score, maps), maps, strict=True))
    expected = large + F.interpolate(small, (8, 12), mode="bilinear", align_corners=False)
    torch.testing.assert_close(explain(model, x, target=1, layer="head").values, expected, rtol=1e-10, atol=1e-12)


class Audio(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cnn, self.head = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU()), nn.Linear(8, 3)

    def picture(self, w: Tensor) -> Tensor:
        window = torch.hann_window(32, dtype=w.dtype)
        return torch.stft(w[:, 0], 32, 16, window=window, return_complex=True).abs()[:, None]

    def forward(self, w: Tensor) -> Tensor:
        scores: Tensor = self.head(self.cnn(self.picture(w)).mean((2, 3)))
        return scores


def test_a_spectrogram_inside_the_model_has_a_map_of_its_own() -> None:
    model, x = seeded(Audio), pictures(2, 1, 400)
    found = explain(model, x, "hires_cam", target=1)
    assert found.recipe == "hires_cam(layer='cnn')"
    maps = model.cnn(model.picture(x)).detach()
    by_hand = torch.einsum("nkft,k->nft", maps, model.head.weight[1] / (17 * 26))[:, None].detach()
    torch.testing.assert_close(found.values, by_hand, rtol=1e-10, atol=1e-12)
    assert explain(model, x, "ablation_cam", target=1).values.shape == (2, 1, 17, 26)
    for method in ("score_cam", "guided_grad_cam"):
        with pytest.raises(
            ValueError, match=r"the layer's grid \(17, 26\) is the model's own and not that of the input"
        ):
            explain(model, x, method, target=1)


def test_frames_folded_into_the_batch_have_a_map_each() -> None:
    class Frames(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cnn, self.head = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU()), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = self.head(self.cnn(x.flatten(0, 1)).mean((2, 3)).view(len(x), -1, 5).amax(1))
            return scores

    model, x = seeded(Frames), pictures(2, 4, 3, 6, 8)
    found = explain(model, x, "hires_cam", target=1, layer="cnn").values
    maps = model.cnn(x.flatten(0, 1)).detach().requires_grad_()
    score = model.head(maps.mean((2, 3)).view(2, 4, 5).amax(1))[:, 1].sum()
    (grad,) = torch.autograd.grad(score, [maps])
    by_hand = (grad * maps).sum(1).view(2, 4, 1, 6, 8).detach()
    torch.testing.assert_close(found, by_hand, rtol=1e-10, atol=1e-12)


def test_values_decide_nothing() -> None:
    class Zero(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
            self.head = nn.Linear(4, 3)
            nn.init.zeros_(self.head.weight)
            nn.init.constant_(self.second.bias, -100)

        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = self.head(self.second(self.first(x).relu()).relu_().mean((2, 3)))
            return scores

    with pytest.warns(MapWarning, match="the map of layer 'second' is zero everywhere"):
        assert explain(seeded(Zero), pictures(1, 3, 8, 8), target=1).recipe == "grad_cam(layer='second')"


def test_a_saturated_score_says_so() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3), nn.Sigmoid()
    )
    model = model.double().eval()
    with torch.no_grad():
        model[4].bias.fill_(40)
    with pytest.warns(
        MapWarning,
        match="the score is 1, where a sigmoid or a softmax is saturated .* goes into it by before_sigmoid=True or",
    ):
        explain(model, pictures(1, 3, 8, 8), target=1)
    found, expected = explain(model, pictures(1, 3, 8, 8), target=1, before_sigmoid=True), model[:5].eval()
    torch.testing.assert_close(found.values, explain(expected, pictures(1, 3, 8, 8), target=1).values)


def test_the_automatic_layer_follows_a_flag_of_the_model() -> None:
    class Flagged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.late = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
            self.head, self.deep = nn.Linear(4, 3), False

        def forward(self, x: Tensor) -> Tensor:
            h = self.first(x).relu()
            scores: Tensor = self.head((self.late(h) if self.deep else h).mean((2, 3)))
            return scores

    model, x = seeded(Flagged), pictures(2, 3, 8, 8)
    for deep in (False, True, False):
        model.deep = deep
        found = explain(model, x, target=1)
        assert found.recipe == f"grad_cam(layer='{'late' if deep else 'first'}')"


def test_classes_of_separate_branches_have_layers_of_their_own() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Conv2d(3, 4, 3, padding=1)
            self.one, self.other = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
            self.heads = nn.ModuleList([nn.Linear(4, 2), nn.Linear(4, 2)])

        def forward(self, x: Tensor) -> Tensor:
            h = self.body(x).relu()
            return torch.cat([self.heads[0](self.one(h).mean((2, 3))), self.heads[1](self.other(h).mean((2, 3)))], 1)

    model, x = seeded(Branches), pictures(1, 3, 8, 8)
    for target in (0, 3, 1, 2, 0):
        assert explain(model, x, target=target).recipe == f"grad_cam(layer='{'one' if target < 2 else 'other'}')"
    with pytest.raises(ValueError, match="the score does not depend on layer 'one'"):
        explain(model, x, target=3, layer="one")


def test_pictures_that_are_pasted_into_a_batch_begin_anew() -> None:
    class Pasted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            batch = x.new_zeros(len(x), 3, 16, 16)
            for number, picture in enumerate(x):
                batch[number, :, : picture.shape[1], : picture.shape[2]].copy_(picture / 2)
            scores: Tensor = self.head(self.body(batch).relu().mean((2, 3)))
            return scores

    found = explain(seeded(Pasted), pictures(2, 3, 12, 14), target=1)
    assert (found.recipe, found.values.shape) == ("grad_cam(layer='body')", (2, 1, 16, 16))


def test_several_layers_are_fused() -> None:
    model = seeded(
        nn.Sequential, nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 3, padding=1)
    )
    model = nn.Sequential(*model, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3)).double().eval()
    x = pictures(2, 3, 8, 12)
    fine, coarse = (explain(model, x, "layer_cam", target=1, layer=layer).values for layer in ("1", "4"))
    coarse = F.interpolate(coarse, (8, 12), mode="bilinear", align_corners=False)
    for fuse, expected in {
        "mean": (fine + coarse) / 2,
        "sum": fine + coarse,
        "max": torch.maximum(fine, coarse),
        "product": fine * coarse,
    }.items():
        found = explain(model, x, "layer_cam", target=1, layer=["1", model[4]], fuse=fuse)
        torch.testing.assert_close(found.values, expected, rtol=1e-10, atol=1e-12)
    assert found.recipe == "layer_cam(layer=['1', '4'], fuse='product')"
    again = explain(model, x, cnnviz.attributions["layer_cam"](layer=["0", "1"]), target=1)
    assert again.values.shape == (2, 1, 8, 12)
    with pytest.raises(
        ValueError, match="there is no way 'median' to fuse layers; it is 'mean', 'sum', 'max', 'product'"
    ):
        explain(model, x, target=1, layer=["1", "4"], fuse="median")
    with pytest.raises(ValueError, match="there are no layers"):
        explain(model, x, target=1, layer=[])


def test_one_more_pass_at_most_and_only_once() -> None:
    model, x = seeded(Segmenter).net, pictures(2, 3, 8, 8)
    passes: list[int] = []
    model.register_forward_hook(lambda *_: passes.append(1))

    def mean(output: Tensor) -> Tensor:
        return output[:, 1].mean((1, 2))

    for layer in ("1", None):
        explain(model, x, target=mean, layer=layer)
    passes.clear()
    for layer in ("1", None, "1", None):
        explain(model, x, target=mean, layer=layer)
    assert len(passes) == 4


def turned_back(maps: Tensor, how: str) -> Tensor:
    return maps.flip(3) if "flipped" in how else maps.transpose(2, 3) if "transposed" in how else maps


class Augmented(nn.Module):
    """The mean of what it says of a picture, mirrored, turned and enlarged."""

    def __init__(self, *ways: str) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 5, 3, padding=1), nn.ReLU())
        self.head, self.ways = nn.Linear(5, 3), ways

    def views(self, x: Tensor) -> list[Tensor]:
        views = {
            "plain": x,
            "flipped": x.flip(-1),
            "transposed": x.transpose(2, 3),
            "large": F.interpolate(x, scale_factor=2.0),
            "large, flipped": F.interpolate(x.flip(-1), scale_factor=2.0),
        }
        return [views[way] for way in self.ways]

    def classify(self, maps: Tensor) -> Tensor:
        scores: Tensor = self.head(
            (maps * maps.new_tensor([1.0, 2.0])[:, None].repeat(maps.shape[2] // 2, 1)).mean((2, 3))
        )
        return scores

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.classify(self.body(view)) for view in self.views(x)]).mean(0)

    def by_hand(self, x: Tensor, method: str) -> list[Tensor]:
        """The map of each call, as the input lies."""
        maps = [self.body(view).detach().requires_grad_() for view in self.views(x)]
        score = torch.stack([self.classify(each) for each in maps]).mean(0)[:, 1].sum()
        found = []
        for way, each, grad in zip(self.ways, maps, torch.autograd.grad(score, maps), strict=True):
            weight = {"grad_cam": grad.mean((2, 3), keepdim=True), "layer_cam": grad.relu()}.get(method, grad)
            found.append(turned_back((weight * each).sum(1, keepdim=True), way).detach())
        return found


@pytest.mark.parametrize("method", ["grad_cam", "hires_cam", "layer_cam"])
@pytest.mark.parametrize(
    "ways",
    [
        ("flipped",),
        ("transposed",),
        ("plain", "flipped"),
        ("flipped", "plain", "transposed"),
        ("transposed", "flipped"),
    ],
)
def test_maps_of_pictures_that_the_model_mirrors_or_turns_are_turned_back(ways: tuple[str, ...], method: str) -> None:
    model, x = seeded(Augmented, *ways), pictures(2, 3, 8, 10)
    found = explain(model, x, method, target=1, layer="body")
    torch.testing.assert_close(found.values, torch.stack(model.by_hand(x, method)).sum(0), rtol=1e-10, atol=1e-12)
    assert explain(model, x, method, target=1).recipe == f"{method}(layer='body')"
    for call, expected in enumerate(model.by_hand(x, method), 1):
        found = explain(model, x, method, target=1, layer="body", call=call)
        torch.testing.assert_close(found.values, expected, rtol=1e-10, atol=1e-12)


def test_calls_of_several_sizes_are_turned_back_and_added_at_the_inputs_size() -> None:
    model, x = seeded(Augmented, "plain", "large, flipped", "transposed"), pictures(2, 3, 8, 10)
    found = explain(model, x, target=1, layer="body").values
    plain, large, turned = model.by_hand(x, "grad_cam")
    large = F.interpolate(large, (8, 10), mode="bilinear", align_corners=False)
    torch.testing.assert_close(found, plain + large + turned, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("method", ["score_cam", "ablation_cam"])
def test_variants_are_turned_as_the_input_lies(method: str) -> None:
    """Of a model that mirrors its picture it is the map of the same model without that, and the mirrored picture."""
    model, plain, x = seeded(Augmented, "flipped"), seeded(Augmented, "plain"), pictures(2, 3, 8, 10)
    found = explain(model, x, method, target=1, layer="body").values
    expected = explain(plain, x.flip(-1), method, target=1, layer="body").values
    torch.testing.assert_close(found, expected.flip(-1), rtol=1e-8, atol=1e-10)


def test_tokens_that_are_read_backwards_are_turned_back() -> None:
    class Backwards(nn.Module):
        """As a state space model reads a picture from its end."""

        def __init__(self) -> None:
            super().__init__()
            self.stem, self.mix, self.head = nn.Conv2d(3, 4, 2, 2), nn.LayerNorm(4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.mix(self.stem(x).flatten(2).mT.flip(1))
            scores: Tensor = self.head((tokens * torch.arange(len(tokens[0])).double()[:, None]).mean(1))
            return scores

    model, x = seeded(Backwards), pictures(2, 3, 8, 12)
    tokens = model.mix(model.stem(x).flatten(2).mT.flip(1)).detach().requires_grad_()
    score = model.head((tokens * torch.arange(24).double()[:, None]).mean(1))[:, 2].sum()
    (grad,) = torch.autograd.grad(score, tokens)
    expected = (grad * tokens).sum(2).flip(1).view(2, 1, 4, 6).detach()
    found = explain(model, x, "hires_cam", target=2, layer="mix").values
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("method", ["grad_cam", "score_cam"])
@pytest.mark.parametrize("layer", [None, "second"])
def test_an_error_of_the_target_is_raised(method: str, layer: str | None) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())

    def wrong(output: Tensor) -> Tensor:
        raise ZeroDivisionError("the target's own")

    with pytest.raises(ZeroDivisionError, match="the target's own"):
        explain(model.double().eval(), pictures(2, 3, 8, 8), method, target=wrong, layer=layer and "0")


def test_a_target_that_refuses_gradients_is_read_as_it_is() -> None:
    model = seeded(nn.Sequential, nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
    x = pictures(2, 3, 8, 8)
    found = explain(model, x, "score_cam", target=lambda out: torch.from_numpy(out.numpy().mean((1, 2, 3))))
    expected = explain(model, x, "score_cam", target=lambda out: out.mean((1, 2, 3)))
    torch.testing.assert_close(found.values, expected.values)


def test_memory_that_does_not_suffice_is_told() -> None:
    class Large(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.passes = nn.Conv2d(3, 4, 3), 0

        def forward(self, x: Tensor) -> Tensor:
            self.passes += 1
            raise torch.OutOfMemoryError("out of memory")

    model = seeded(Large)
    with pytest.raises(torch.OutOfMemoryError):
        explain(model, pictures(1, 3, 8, 8), target=1, layer="body")
    assert model.passes == 1, "nothing is tried once more"


def test_a_constant_score_has_no_map() -> None:
    model = seeded(nn.Sequential, nn.Conv2d(3, 4, 3), nn.ReLU())
    with pytest.raises(LookupError, match="no layer of Sequential that has spatial extent changes the score; a score"):
        explain(model, pictures(1, 3, 8, 8), target=lambda output: torch.zeros(len(output), dtype=output.dtype))


def test_a_stream_that_blocks_add_to_holds_no_scores() -> None:
    """Of a network without a head the values of the output are explained, whose channels are those of the stream."""

    class Stream(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.block = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            maps = self.stem(x)
            return (maps + self.block(maps)).mean((2, 3))

    model, x = seeded(Stream), pictures(1, 3, 8, 8)
    assert explain(model, x, target=1).recipe == "grad_cam(layer='stem')"
    with pytest.warns(MapWarning, match="layer 'block' holds the scores themselves"):
        explain(model, x, target=1, layer="block")


class Selects(nn.Module):
    """Adds the sum of the places that are above a threshold, of which there are none."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.deep = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.deep(self.body(x).relu()).relu()
        rows = maps.flatten()
        chosen = rows[rows > 1e9].reshape(-1, 4)
        scores: Tensor = self.head(maps.mean((2, 3))) + chosen.sum()
        return scores


def test_tensors_without_values_are_followed() -> None:
    model, x = seeded(Selects), pictures(2, 3, 8, 12)
    assert explain(model, x, target=1).recipe == "grad_cam(layer='deep')"
    with pytest.raises(ValueError, match=r"layer 'head' gives .* no spatial extent"):  # which a flow tells
        explain(model, x, target=1, layer="head")
    assert explain(model, x, "fullgrad", target=1).notes["completeness_gap"].abs().max() < 1e-12


def test_what_is_lost_on_the_way_to_the_automatic_layer_is_told() -> None:
    class Sums(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.head = nn.LayerNorm(8), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = self.head(self.norm(x.cumsum(3)).relu().mean((2, 3)))
            return scores

    model, x = seeded(Sums), pictures(1, 3, 6, 8)
    told = r"found to have spatial extent, as 'norm' can't be followed through cumsum; name a layer .* layer='norm'"
    with pytest.raises(LookupError, match=told):
        explain(model, x, target=1)
    assert explain(model, x, target=1, layer="norm", layout="channels_first").values.shape == (1, 1, 6, 8)


class Quantized(nn.Module):
    """Integers between a quantization and its reverse, as static quantization leaves them."""

    def __init__(self, stem: bool = True) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1) if stem else nn.Identity()
        self.quantize, self.dequantize = _Quantize(), _Dequantize()
        self.head = nn.Linear(4 if stem else 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.dequantize(self.quantize(self.stem(x))).mean((2, 3)))
        return scores


class _Quantize(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.quantize_per_tensor(x.detach(), 0.05, 128, torch.quint8)


class _Dequantize(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.dequantize()


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")  # torch will do without it
def test_quantized_numbers_make_no_map() -> None:
    model, x = seeded(Quantized).float(), pictures(2, 3, 6, 8).float()
    for method in ("grad_cam", "score_cam", "ablation_cam", "activation"):
        for layer in ("quantize", cnnviz.LayerAt("quantize", layout="channels_first")):
            told = r"layer 'quantize' gives torch\.quint8, which is quantized; name a layer behind dequantize"
            with pytest.raises(TypeError, match=told):
                explain(model, x, method, target=1, layer=layer)
        behind = cnnviz.LayerAt("dequantize", layout="channels_first")
        assert explain(model, x, method, target=1, layer=behind).values.shape[2:] == (6, 8)
    with pytest.raises(LookupError, match=r"as 'dequantize' can't be followed .*, such as layer='dequantize', layout="):
        explain(seeded(Quantized, False).float(), x, target=1)


@pytest.mark.parametrize("of", [0, 1])
def test_score_cam_and_guided_grad_cam_of_a_siamese_network(of: int) -> None:
    model, pair = seeded(Siamese, "two calls"), (pictures(1, 3, 8, 8, seed=1), pictures(1, 3, 8, 8, seed=2))
    maps = [model.net(each).detach().requires_grad_() for each in pair]
    score = torch.cosine_similarity(maps[0].mean((2, 3)), maps[1].mean((2, 3))).sum()
    cam = weighted(torch.autograd.grad(score, [maps[of]])[0], maps[of])
    guided = explain(model, pair, "guided_backprop", of=of).values
    found = explain(model, pair, "guided_grad_cam", of=of).values
    torch.testing.assert_close(found, guided * cam.relu(), rtol=1e-9, atol=1e-12)

    scored = torch.zeros(1, 1, 8, 8).double()
    with torch.no_grad():
        for channel in maps[of][0]:
            masked = list(pair)
            masked[of] = pair[of] * (channel - channel.min()) / (channel.max() - channel.min())
            scored += model(*masked) * channel
    found = explain(model, pair, "score_cam", of=of, channel_softmax=False).values
    torch.testing.assert_close(found, scored, rtol=1e-9, atol=1e-12)


def test_a_table_that_only_decodes_boxes_is_on_no_way_to_a_class() -> None:
    """As the distribution focal loss of YOLO's later versions is."""

    class Decode(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 1, 1, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.conv(x.view(len(x), 4, 4, -1).transpose(2, 1).softmax(1))
            return found.view(len(x), 4, -1)

    class Yolo(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.SiLU())
            self.boxes, self.classes, self.decode = nn.Conv2d(8, 16, 1), nn.Conv2d(8, 5, 1), Decode()

        def forward(self, x: Tensor) -> Tensor:
            maps = self.body(x)
            return torch.cat([self.decode(self.boxes(maps).flatten(2)), self.classes(maps).flatten(2).sigmoid()], 1)

    model, x = seeded(Yolo), pictures(2, 3, 16, 24)
    for method in ("grad_cam", "ablation_cam"):
        found = explain(model, x, method, target=lambda output: output[:, 6].amax(1))
        assert found.recipe == f"{method}(layer='body')"


def test_a_network_that_begins_with_a_convolution_over_channels_and_time() -> None:
    """Of a signal (N, C, T) that is taken for a picture of one channel, as EEGNet does."""

    class Signals(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.time, self.space = nn.Conv2d(1, 6, (1, 5), padding=(0, 2)), nn.Conv2d(6, 6, (4, 1), groups=6)
            self.head = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = self.head(self.space(self.time(x[:, None])).relu().mean((2, 3)))
            return scores

    model, x = seeded(Signals), pictures(2, 4, 12)
    maps = model.space(model.time(x[:, None])).detach()
    expected = torch.einsum("nkct,k->nct", maps * (maps > 0), model.head.weight[1] / 12)[:, None].detach()
    found = explain(model, x, "hires_cam", target=1)
    assert found.recipe == "hires_cam(layer='space')"
    torch.testing.assert_close(found.values, expected, rtol=1e-10, atol=1e-12)
    assert explain(model, x, "grad_cam", target=1, layer="time").values.shape == (2, 1, 4, 12)
    with pytest.raises(ValueError, match=r"the layer's grid \(1, 12\) is the model's own"):
        explain(model, x, "score_cam", target=1)
