"""A layer is found by name, path, number, module or by itself; what is no place for a map is refused."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
import torchvision
from quick import PARTICULAR
from torch import Tensor, nn

from cnnviz import LayerAt, attributions, explain
from cnnviz.formulas import MapWarning
from cnnviz.testing import SmallNet

LAYERED = [name for name in attributions if "layer" in attributions[name].settings]


def batch(size: int = 12) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(4))


def ask(model: nn.Module, layer: Any, name: str = "grad_cam", inputs: Tensor | None = None) -> Tensor:
    return explain(
        model, batch() if inputs is None else inputs, name, target=1, layer=layer, **PARTICULAR.get(name, {})
    ).values


class Nested(nn.Module):
    """Two blocks, each a sequence; the first convolution alone is not the first module."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            self.stem = nn.Identity()
            self.block1 = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
            self.block2 = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.ReLU())
            self.pair = Pair()
            self.unused = nn.Conv2d(6, 6, 1)
            self.fc = nn.Linear(6, 5)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.block2(self.block1(self.stem(x)))
        x, _ = self.pair(x)
        scores: Tensor = self.fc(x.mean((2, 3)))
        return scores


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


@pytest.mark.parametrize("name", LAYERED)
def test_all_ways_to_name_a_layer_mean_the_same(name: str) -> None:
    model = Nested()
    expected = ask(model, "block2.0", name)
    ways = [
        *(("block2", "0"), ["block2.0"], 2, -2, "2", "-2", model.block2[0]),
        *("module.block2.0", "_orig_mod.block2.0"),
    ]
    for layer in ways:
        assert torch.equal(ask(model, layer, name), expected), layer
    for layer in (1, -3, "block1.0", model.block1[0]) if name != "cam" else ():
        assert torch.equal(ask(model, layer, name), ask(model, ("block1", "0"), name)), layer


def test_a_wrapped_model_has_its_layers_under_their_names() -> None:
    expected = ask(Nested(), "block2.1")
    for layer in ("block2.1", "module.block2.1"):
        assert torch.equal(ask(nn.DataParallel(Nested()), layer), expected)


REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "near": ("blok2.0", LookupError, r"Nested has no layer 'blok2.0'; did you mean 'block2.0'\?"),
    "near, in a path": (("block2", "o"), LookupError, r"no layer 'block2.o'; did you mean 'block2(.\d)?'\?"),
    "far": ("xyz", LookupError, "Nested has no layer 'xyz'; it starts with stem, block1, block2"),
    "empty": ("", LookupError, "no layer ''|is the whole model"),
    "number 0": (0, LookupError, "there is no convolution 0; Nested has 1 to 3"),
    "number too high": (4, LookupError, "there is no convolution 4; Nested has 1 to 3"),
    "number too low": (-4, LookupError, "there is no convolution -4; Nested has 1 to 3"),
    "another model's": (nn.Conv2d(1, 1, 1), LookupError, "the layer Conv2d is no part of Nested"),
    "fully connected": (
        "fc",
        ValueError,
        r"layer 'fc' gives \(2, 5\), which has no spatial extent; choose a layer before",
    ),
    "never run": ("unused", LookupError, "layer 'unused' did not run for this input"),
    "a pair": ("pair", TypeError, "layer 'pair' gives a tuple, not a tensor; name one of the layers inside it"),
    "true": (True, (TypeError, LookupError), "True"),
    "a float": (1.5, TypeError, "1.5"),
}


@pytest.mark.parametrize("name", LAYERED)
@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_place_for_a_map_is_refused(name: str, case: str) -> None:
    layer, error, message = REFUSED[case]
    if case == "fully connected" and name in ("projections", "conditional_relevance", "layer_relevance", "lrp"):
        return  # a unit is projected from anywhere, and features have relevance
    model = Nested()
    with pytest.raises(error, match=message) as caught:
        ask(model, layer, name)
    assert "\n" not in str(caught.value)
    assert not any(module._forward_hooks for module in model.modules())


def test_the_recipe_tells_the_layer_that_was_found() -> None:
    found = explain(SmallNet(), batch(), "grad_cam", target=1)
    assert found.recipe == "grad_cam(layer='third')"
    assert torch.equal(found.values, ask(SmallNet(), "third"))


def test_the_calls_of_a_layer_that_runs_twice_add_up() -> None:
    class Twice(SmallNet):
        def forward(self, x: Tensor) -> Tensor:
            x = self.pool(self.relu(self.norm(self.first(x))))
            x = torch.relu(self.third(torch.relu(self.third(torch.relu(self.second(x))))))
            scores: Tensor = self.classifier(x.mean((2, 3)))
            return scores

    class Unrolled(Twice):
        def __init__(self) -> None:
            super().__init__()
            self.fourth = nn.Conv2d(8, 8, 3, padding=1)
            self.fourth.load_state_dict(self.third.state_dict())

        def forward(self, x: Tensor) -> Tensor:
            x = self.pool(self.relu(self.norm(self.first(x))))
            x = torch.relu(self.fourth(torch.relu(self.third(torch.relu(self.second(x))))))
            scores: Tensor = self.classifier(x.mean((2, 3)))
            return scores

    for name in LAYERED:
        second = ask(Unrolled(), "fourth", name)
        first = second if name == "cam" else ask(Unrolled(), "third", name)
        if name in ("activation", "conditional_relevance", "layer_relevance", "lrp", "projections"):
            with pytest.raises(
                ValueError, match=r"layer 'third' runs (several times, and calls 1, 2|2 times; say which)"
            ):
                ask(Twice(), "third", name)
            continue
        if name == "cam":
            with pytest.raises(ValueError, match="cam needs a network that averages this layer"):
                ask(Twice(), "third", name)  # of the first call
        if name in ("cam", "guided_grad_cam"):
            wanted = {2: second, -1: second}
        else:
            wanted = {1: first, 2: second, -1: second, -2: first, None: first + second}
        for call, expected in wanted.items():
            found = explain(Twice(), batch(), name, target=1, layer="third", call=call, **PARTICULAR.get(name, {}))
            torch.testing.assert_close(found.values, expected, msg=f"{name} {call}")
    with pytest.raises(ValueError, match="there is no call 3 of layer 'third'; it runs 2 times"):
        explain(Twice(), batch(), "grad_cam", target=1, layer="third", call=3)
    with pytest.raises(ValueError, match="call=0 is no call; they are numbered from 1"):
        explain(Twice(), batch(), "grad_cam", target=1, layer="third", call=0)
    for call in (1.5, True):
        with pytest.raises(ValueError, match=f"call={call} is no call; they are numbered from 1"):
            explain(Twice(), batch(), "grad_cam", target=1, layer=LayerAt("third", call=call))  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad])
def test_a_layer_inside_a_grad_block(mode: Any) -> None:
    class Blocked(SmallNet):
        def forward(self, x: Tensor) -> Tensor:
            x = self.pool(self.relu(self.norm(self.first(x))))
            with mode():
                x = self.second(x)
            scores: Tensor = self.classifier(self.third(torch.relu(x)).relu_().mean((2, 3)))
            return scores

    expected = ask(SmallNet(), "second")
    if mode is torch.no_grad:  # what comes behind the block can be asked, what is in it cannot or is right
        torch.testing.assert_close(ask(Blocked(), "third"), ask(SmallNet(), "third"))
        try:
            found = ask(Blocked(), "second")
        except ValueError as error:
            assert "no_grad()" in str(error)  # noqa: PT017
            return
        torch.testing.assert_close(found, expected)
    else:
        torch.testing.assert_close(ask(Blocked(), "second"), expected)


def test_in_place_relu_at_and_behind_the_layer() -> None:
    def net(inplace: bool) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            return nn.Sequential(
                *(nn.Conv2d(3, 4, 3), nn.ReLU(inplace), nn.Conv2d(4, 6, 3), nn.ReLU(inplace)),
                *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)),
            ).eval()

    for name in LAYERED:
        for layer in ("0", "1", "2", "3"):
            if name == "cam" and layer in "01":
                continue  # not averaged and classified linearly
            torch.testing.assert_close(ask(net(True), layer, name), ask(net(False), layer, name), msg=f"{name} {layer}")


AUTOMATIC = {
    "alexnet": ("features.11", 64),
    "vgg11": ("features.19", 64),
    "resnet18": ("layer4", 64),
    "squeezenet1_0": ("features", 64),
    "densenet121": ("features", 64),
    "mobilenet_v2": ("features", 64),
    "googlenet": ("inception5b", 64),
    "shufflenet_v2_x0_5": ("conv5", 64),
    "efficientnet_b0": ("features", 64),
    "convnext_tiny": ("features", 64),
}


@pytest.mark.parametrize("name", AUTOMATIC)
def test_the_last_spatial_layer_of_known_networks(name: str) -> None:
    layer, size = AUTOMATIC[name]
    more = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None, **more).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MapWarning)  # of a network as it is initialized a map may be zero
        found = explain(model, batch(size), "grad_cam", target=1)
    assert found.recipe == f"grad_cam(layer='{layer}')"
    assert found.values.shape[:2] == (2, 1)


@pytest.fixture(scope="module")
def swin() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.swin_t(weights=None).eval()


def test_channels_last_layers_are_read(swin: nn.Module) -> None:
    assert ask(swin, "features.5", inputs=batch(128)).shape == (2, 1, 8, 8)
    assert ask(swin, "features.7", inputs=batch(128)).shape == (2, 1, 4, 4)
    torch.testing.assert_close(ask(swin, "norm", inputs=batch(128)), ask(swin, "permute", inputs=batch(128)))


def test_the_permuted_layer_of_swin_is_found(swin: nn.Module) -> None:
    assert explain(swin, batch(128), "grad_cam", target=1).recipe == "grad_cam(layer='permute')"


def test_a_model_without_maps_has_no_layer_to_find() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 12, 5)).eval()
    with pytest.raises(
        LookupError, match=r"no layer of Sequential has spatial extent for an input of \(1, 3, 12, 12\)"
    ):
        explain(model, batch(), "grad_cam")


def test_the_automatic_layer_follows_the_model() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)).eval()
    assert "layer='1'" in explain(model, batch(), "grad_cam").recipe
    model.insert(2, nn.Conv2d(4, 4, 3))
    assert "layer='2'" in explain(model.eval(), batch(), "grad_cam").recipe


def test_a_block_that_ends_with_an_identity_is_a_layer_of_its_own() -> None:
    blocks = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Identity(), nn.Dropout(0.5)))
    model = nn.Sequential(blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)).eval()
    assert explain(model, batch(), "grad_cam", target=1).recipe == "grad_cam(layer='0')"
    torch.testing.assert_close(ask(model, None), ask(model, "0.0.1"), rtol=0, atol=0)


def test_a_block_that_ends_with_pooling_is_not_the_map_before_it() -> None:
    blocks = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Identity())
    model = nn.Sequential(blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)).eval()
    assert explain(model, batch(), "grad_cam", target=1).recipe == "grad_cam(layer='0.1')"


class Anchors(nn.Module):
    """A head of a detector: two anchors and three classes at each place, all boxes in one list of (places, 3)."""

    def __init__(self, centered: bool):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(2)
            self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
            self.logits, self.center = nn.Conv2d(8, 6, 3, padding=1), nn.Conv2d(8, 1, 3, padding=1)
        self.centered = centered
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        maps = self.stem(x)
        scores: Tensor = (
            self.logits(maps).view(len(x), 2, 3, *maps.shape[2:]).permute(0, 3, 4, 1, 2).reshape(len(x), -1, 3)
        )
        if self.centered:
            scores = scores * self.center(maps).sigmoid().flatten(1).repeat_interleave(2, 1)[..., None]
        return scores.softmax(2)


@pytest.mark.parametrize("centered", [False, True])
def test_the_scores_of_anchors_are_no_place_for_a_map(centered: bool) -> None:
    model, inputs = Anchors(centered), batch()

    def best_box(output: Tensor) -> Tensor:
        best, _ = output[..., 1].topk(2)
        return best[:, 0]

    explanation = explain(model, inputs, "grad_cam", target=best_box)
    assert explanation.recipe == "grad_cam(layer='stem')"
    maps = model.stem(inputs).detach().requires_grad_()
    model.stem, stem = nn.Identity(), model.stem
    (grad,) = torch.autograd.grad(best_box(model(maps)).sum(), maps)
    model.stem = stem
    expected = (grad.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True).detach()
    torch.testing.assert_close(explanation.values, expected)
    with pytest.warns(MapWarning, match="scores themselves"):
        explain(model, inputs, "grad_cam", target=best_box, layer="logits")


class Shuffled(nn.Module):
    """Tokens in another order, as a sort or a random permutation leaves them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches, self.norm, self.head = nn.Conv2d(3, 4, 4, 4), nn.LayerNorm(4), nn.Linear(4, 2)
        self.order = torch.tensor([2, 0, 3, 1])

    def forward(self, inputs: Tensor) -> Tensor:
        tokens = self.patches(inputs).flatten(2).transpose(1, 2)[:, self.order]
        scores: Tensor = self.head(self.norm(tokens).square().mean(1))
        return scores


def test_places_that_are_not_found_may_be_said() -> None:
    model, inputs = Shuffled().eval(), torch.randn(2, 3, 8, 8)
    with pytest.raises(ValueError, match=r"\(2, 4, 4\), in which the places of the input are not found; .*layout="):
        explain(model, inputs, layer="norm")
    values = explain(model, inputs, target=1, layer="norm", layout="tokens").values
    tokens = model.norm(model.patches(inputs).flatten(2).transpose(1, 2)[:, model.order]).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(model.head(tokens.square().mean(1))[:, 1].sum(), tokens)
    expected = (gradient.mean(1, keepdim=True) * tokens).sum(2).view(2, 1, 2, 2).detach()
    torch.testing.assert_close(values, expected)
