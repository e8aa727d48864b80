"""What a synthesis makes: climbed as the papers say, made again by its seed, kept when interrupted, drawn."""

from __future__ import annotations

import io
import math
from base64 import b64decode
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open
from torch import Tensor, nn

import cnnviz
from cnnviz import Ascent, Preprocessing, Synthesized, syntheses, synthesize
from cnnviz.feature_visualization import FreeCanvas, RandomNumbers
from cnnviz.objectives import channel, l2
from cnnviz.tasks.layer_selection import evenly_spaced_layers
from cnnviz.testing import SmallNet

PLAIN = Preprocessing((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Linear(nn.Module):
    """Scores are products with whole images: what maximizes them can be written down."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, (5, 6)).double()
        with torch.no_grad():
            self.conv.weight.copy_(torch.randn(4, 3, 5, 6, generator=generator(3)))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).flatten(1)


class Deep(nn.Module):
    """Convolutions, ReLUs that write in place, and a pool, in a sequence."""

    def __init__(self, asleep: bool = False) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.features = nn.Sequential(
                *(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
                *(nn.Conv2d(6, 5, 3, padding=1), nn.ReLU(inplace=True)),
            )
            self.head = nn.Linear(5, 4)
        if asleep:
            with torch.no_grad():
                self.features[3].bias.fill_(-0.6)
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))


# What is climbed


def test_simonyans_image_of_a_linear_score_is_its_weights() -> None:
    model = Linear()
    made = synthesize(
        model, "class_image", target=2, size=(5, 6), steps=60, lr=0.5, penalty=0.5, **plain_ascent(), bounded=False
    )
    # the score w I - 0.5 |I|^2 is highest at I = w
    torch.testing.assert_close(made.inputs[0], model.conv.weight[2].detach(), rtol=1e-6, atol=1e-9)
    assert made.history[-1] > made.history[0]


def plain_ascent() -> dict[str, Any]:
    return {"decay": 0.0, "blur": 0.0, "even": False}


def test_each_regularization_of_yosinski_does_what_it_says() -> None:
    model = Linear()
    weight = model.conv.weight[1].detach()
    how = plain_ascent() | {"target": 1, "size": (5, 6), "steps": 1, "lr": 0.1, "bounded": False}
    (step,) = synthesize(model, "class_image", **how).inputs
    torch.testing.assert_close(step, 0.1 * weight)
    (decayed,) = synthesize(model, "class_image", **how | {"decay": 0.25}).inputs
    torch.testing.assert_close(decayed, 0.75 * step)
    (quiet,) = synthesize(model, "class_image", **how | {"small_norms": 40.0}).inputs
    norms = step.square().sum(0).sqrt()
    silent = norms <= norms.flatten().sort().values[11]  # 40 percent of 30 places
    assert torch.equal(quiet, step * ~silent)
    (kept,) = synthesize(model, "class_image", **how | {"small_contributions": 40.0}).inputs
    shares = (step * weight).sum(0).abs()
    assert torch.equal(kept, step * (shares > shares.flatten().sort().values[11]))
    (soft,) = synthesize(model, "class_image", **how | {"blur": 0.8, "blur_every": 1}).inputs
    torch.testing.assert_close(soft, gaussian_by_hand(step, 0.8))
    (sharp,) = synthesize(model, "class_image", **how | {"blur": 0.8, "blur_every": 2}).inputs
    torch.testing.assert_close(sharp, step)
    (even,) = synthesize(model, "class_image", **how | {"even": True}).inputs
    torch.testing.assert_close(even, 0.1 * weight / weight.abs().mean())
    (bounded,) = synthesize(model, "class_image", **how | {"lr": 9.0, "bounded": True}).inputs
    torch.testing.assert_close(bounded, (9 * weight).clamp(-2, 2))


def gaussian_by_hand(image: Tensor, sigma: float) -> Tensor:
    reach = math.ceil(3 * sigma)
    for dim in (1, 2):
        length, smooth = image.shape[dim], torch.zeros_like(image)
        weights = {away: math.exp(-(away**2) / (2 * sigma**2)) for away in range(-reach, reach + 1)}
        for at in range(length):
            total = torch.zeros_like(image.select(dim, 0))
            for away, weight in weights.items():
                total += weight * image.select(dim, min(max(at + away, 0), length - 1))
            smooth.select(dim, at).copy_(total / sum(weights.values()))
        image = smooth
    return image


def construct_by_hand(model: Deep, index: int, steps: int, blur: int | None) -> Tensor:
    """Seed 003's ``construct``, of its second convolution, at three sizes from 8 pixels, in its own way of writing."""
    image = RandomNumbers(5).integers(150, 180, (1, 3, 8, 8)) / 255
    size = 8
    for scale in range(3):
        if scale:
            size = int(1.5 * size)
            image = F.interpolate(image, (size, size), mode="bicubic", align_corners=False)
            if blur:
                wide = F.pad(image, (blur // 2, (blur - 1) // 2) * 2, mode="reflect")
                image = torch.stack([wide[..., r : r + size, c : c + size] for r in range(blur) for c in range(blur)])
                image = image.mean(0)
        variable = ((image - 0.5) / 0.25).requires_grad_()
        adam = torch.optim.Adam([variable], lr=0.1, weight_decay=1e-6)
        for _ in range(steps):
            adam.zero_grad()
            before = model.features[2](F.relu(model.features[0](variable)))
            (-model.features[3](before)[0, index].mean()).backward()
            adam.step()
        image = variable.detach() * 0.25 + 0.5
    return (image - 0.5) / 0.25


@pytest.mark.parametrize("blur", [None, 3])
def test_multiscale_ascent_is_seed_003s_construct(blur: int | None) -> None:
    model = Deep()
    how = {"channel": 2, "steps": 4, "scales": 3, "factor": 1.5, "start": 8, "blur": blur}
    made = synthesize(model, "multiscale_ascent", layer=2, preprocessing=PLAIN, seed=5, **how)
    torch.testing.assert_close(made.inputs, construct_by_hand(model, 2, 4, blur), rtol=1e-4, atol=1e-5)
    assert len(made.history) == 12


def test_multiscale_ascent_ends_at_the_size_asked_for() -> None:
    made = synthesize(Deep(), "multiscale_ascent", layer=1, channel=0, steps=1, scales=3, size=(20, 30), snapshots=1)
    assert [tuple(each.shape[2:]) for each in made.snapshots.values()] == [(14, 21), (17, 25), (20, 30)]


def test_a_dream_takes_even_steps_up_the_layers_energy() -> None:
    model, picture = Deep(), torch.rand(1, 3, 10, 12, generator=generator()) - 0.5
    made = synthesize(model, "deep_dream", start=picture, layer="features.3", octaves=1, steps=1, jitter=0, lr=0.01)
    leaf = picture.clone().requires_grad_()
    model.features[:4](leaf).square().mean().backward()
    assert leaf.grad is not None
    expected = picture + 0.01 * 4 * leaf.grad / leaf.grad.abs().mean()  # of the range -2 to 2
    torch.testing.assert_close(made.inputs, expected.clamp(-2, 2))


def test_a_dream_takes_what_it_found_to_the_next_octave() -> None:
    picture = torch.rand(1, 3, 16, 24, generator=generator()) - 0.5
    how: dict[str, Any] = {"start": picture, "layer": "features.3", "factor": 2.0, "steps": 1, "jitter": 0}
    small = F.interpolate(picture, (8, 12), mode="bilinear", antialias=True)
    found = synthesize(Deep(), "deep_dream", **how | {"start": small, "octaves": 1}).inputs - small
    begun = picture + F.interpolate(found, (16, 24), mode="bilinear")
    expected = synthesize(Deep(), "deep_dream", **how | {"start": begun, "octaves": 1}).inputs
    made = synthesize(Deep(), "deep_dream", **how, octaves=2)
    torch.testing.assert_close(made.inputs, expected)
    plain = synthesize(Deep(), "deep_dream", **how | {"octaves": 1, "steps": 20, "jitter": 3})
    assert plain.history[-1] > 1.5 * plain.history[0]


def test_an_inversion_comes_near_and_nearer() -> None:
    model = Deep()
    picture = torch.rand(1, 3, 16, 16, generator=generator()) - 0.5
    made = synthesize(model, "inversion", of=picture, layer="features.3", steps=150, snapshots=50)
    target = model.features[:4](picture).detach()
    errors = [
        float((model.features[:4](each).detach() - target).norm() / target.norm()) for each in made.snapshots.values()
    ]
    assert errors[0] > errors[1] > errors[2]
    assert errors[-1] < 0.1
    assert float(made.notes["relative_error"]) == pytest.approx(errors[-1], rel=1e-4)


def test_inversion_on_pixels_is_momentum_on_the_published_loss() -> None:
    model = Deep()
    picture = torch.rand(1, 3, 8, 8, generator=generator()) - 0.5
    how = {"norm_weight": 0.3, "alpha": 4.0, "variation_weight": 0.2, "lr": 0.5, "steps": 2, "seed": 4}
    made = synthesize(model, "inversion", of=picture, layer="features.3", canvas="pixels", **how)
    image = (0.1 * RandomNumbers(4).normal((1, 3, 8, 8))).requires_grad_()
    target = model.features[:4](picture).detach()
    velocity = torch.zeros_like(image)
    for _ in range(2):
        distance = (model.features[:4](image) - target).square().sum() / target.square().sum()
        down = (image[:, :, 1:] - image[:, :, :-1]).square().sum() / image.numel()
        across = (image[..., 1:] - image[..., :-1]).square().sum() / image.numel()
        loss = distance + 0.3 * (image**4).mean() + 0.2 * (down + across)
        (slope,) = torch.autograd.grad(loss, image)
        velocity = 0.9 * velocity + slope
        image = (image - 0.5 * velocity).detach().requires_grad_()
    torch.testing.assert_close(made.inputs, image.detach(), rtol=1e-4, atol=1e-6)


def test_several_pictures_are_inverted_together() -> None:
    pictures = torch.rand(3, 3, 8, 8, generator=generator()) - 0.5
    made = synthesize(Deep(), "inversion", of=pictures, layer="features.0", steps=2)
    assert made.inputs.shape == (3, 3, 8, 8)
    assert made.notes["relative_error"].shape == (3,)
    assert synthesize(Deep(), "inversion", of=pictures[0], layer="features.0", steps=2, count=2).inputs.shape[0] == 2


def test_a_feature_image_drives_its_channel() -> None:
    model = Deep()
    made = synthesize(model, "feature_image", layer="features.4", channel=1, size=24, steps=48, lr=0.3)
    noise = torch.rand(64, 3, 24, 24, generator=generator()) * 4 - 2
    of_noise = model.features(noise)[:, 1].mean((1, 2)).max()
    assert float(model.features(made.inputs)[0, 1].mean()) > 2 * float(of_noise)
    assert float(made.inputs.abs().max()) <= 2


@pytest.mark.parametrize("asked", ["at", "place", "target", "objective"])
def test_a_feature_image_is_of_units_classes_and_objectives_too(asked: str) -> None:
    wanted: dict[str, Any] = {
        "at": {"layer": "features.3", "channel": 1, "at": "middle"},
        "place": {"layer": "features.3", "channel": 1, "at": "2,3"},
        "target": {"target": "seven", "categories": ["five", "six", "seven", "eight"]},
        "objective": {"objective": channel("features.3", 0) - 0.5 * channel("features.0", 2) - l2()},
    }
    made = synthesize(Deep(), "feature_image", size=12, steps=32, lr=0.3, robust=False, **wanted[asked])
    assert float(made.history[-1]) > float(made.history[0]) + 0.03
    if asked == "place":
        unit = Deep().features[:4](made.inputs)[0, 1]
        assert unit.flatten().argmax() == 2 * 6 + 3


def test_what_wakes_nothing_is_woken() -> None:
    model = Deep(asleep=True)
    how: dict[str, Any] = {"layer": "features.4", "channel": 3, "size": 16, "steps": 40, "lr": 0.2}
    made = synthesize(model, "feature_image", **how)
    assert float(made.history[0]) == 0
    assert float(made.history[-1]) > 0.1

    def stubborn(ascent: Ascent) -> Tensor:
        canvas = FreeCanvas(torch.zeros(ascent.shape()))
        return ascent.ascend(canvas, channel("features.4", 3), torch.optim.Adam(canvas.parameters, 0.1), 4)

    assert not synthesize(model, stubborn, size=16).inputs.any()


def test_diversity_makes_images_of_a_batch_differ() -> None:
    def likeness(diversity: float) -> float:
        how: dict[str, Any] = {"layer": "features.4", "channel": 1, "size": 16, "count": 2, "steps": 80, "lr": 0.2}
        made = synthesize(Deep(), "feature_image", diversity=diversity, **how)
        maps = Deep().features(made.inputs).flatten(2)
        grams = F.normalize((maps @ maps.transpose(1, 2)).flatten(1), dim=1)
        return float(grams[0] @ grams[1])

    assert likeness(0.9) < likeness(0.0) - 0.01


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", ["feature_image", "inversion"])
def test_a_synthesis_is_the_same_where_gradients_are_off(name: str, mode: Callable[[], Any]) -> None:
    settings = {"of": torch.linspace(-1, 1, 3 * 14 * 12).view(3, 14, 12)} if name == "inversion" else {"channel": 2}
    made = synthesize(SmallNet(), name, layer="second", steps=3, size=(14, 12), **settings).inputs
    model = SmallNet()
    with mode():
        assert torch.equal(synthesize(model, name, layer="second", steps=3, size=(14, 12), **settings).inputs, made)


# Seeds, progress, interruption


def test_one_seed_makes_one_image_and_another_another() -> None:
    how: dict[str, Any] = {"layer": "features.4", "channel": 1, "size": 12, "steps": 3}
    first, again, other = (synthesize(Deep(), "feature_image", seed=seed, **how).inputs for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_an_interruption_keeps_what_there_is() -> None:
    model = Deep()
    how: dict[str, Any] = {"layer": "features.4", "channel": 1, "size": 12, "seed": 1, "robust": False}

    def impatient(done: int, of: int) -> None:
        assert of == 20
        if done == 5:
            raise KeyboardInterrupt

    made = synthesize(model, "feature_image", steps=20, progress=impatient, snapshots=2, **how)
    assert not made.finished
    assert len(made.history) == 5
    assert list(made.snapshots) == [2, 4]
    torch.testing.assert_close(made.inputs, synthesize(model, "feature_image", steps=5, **how).inputs)
    assert made.outcome().endswith(" in 5 steps, interrupted")
    assert repr(made).endswith("1 x 3 x 12 x 12, 5 steps; interrupted)")

    def at_once(ascent: Ascent) -> Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesize(model, at_once)


def test_half_precision_paints_in_whole() -> None:
    made = synthesize(Deep().bfloat16(), "feature_image", layer="features.4", channel=1, size=12, steps=24, lr=0.3)
    assert made.inputs.dtype == torch.bfloat16
    assert made.history[-1] > made.history[0]
    assert made.pictures().shape == (1, 12, 12, 3)


# What is handed over and what is told


def test_sizes_come_from_the_user_the_preprocessing_or_the_picture(tmp_path: Path) -> None:
    known = Preprocessing((0.5,) * 3, (0.25,) * 3, 20, (14, 16))
    how: dict[str, Any] = {"layer": "features.0", "channel": 1, "steps": 1, "preprocessing": known}
    assert synthesize(Deep(), "feature_image", **how).inputs.shape[2:] == (14, 16)
    assert synthesize(Deep(), "feature_image", size=9, **how).inputs.shape[2:] == (9, 9)
    Image.new("RGB", (40, 30), "teal").save(tmp_path / "teal.png")
    with Image.open(tmp_path / "teal.png") as picture:
        for start in (tmp_path / "teal.png", str(tmp_path / "teal.png"), picture):
            dream = {"start": start, "layer": "features.0", "steps": 1, "octaves": 1, "lr": 0.0, "jitter": 0}
            made = synthesize(Deep(), "deep_dream", preprocessing=known, **dream)
            assert made.inputs.shape[2:] == (14, 16)
            np.testing.assert_array_equal(made.pictures()[0, 5, 5], (0, 128, 128))
            made = synthesize(Deep(), "deep_dream", preprocessing=known, size=(8, 10), **dream)
            assert made.inputs.shape[2:] == (8, 10)


def test_recipes_are_calls_that_make_the_same() -> None:
    model = Deep()
    made = synthesize(model, "feature_image", channel=1, size=12, steps=2)
    assert made.recipe == "feature_image(layer='features', channel=1, steps=2)"
    made = synthesize(model, syntheses["feature_image"](layer=model.features[3], channel=1, steps=2), size=12)
    assert made.recipe == "feature_image(layer='features.3', channel=1, steps=2)"
    made = synthesize(model, "inversion", of=torch.zeros(3, 8, 8), layer=1, steps=1)
    assert made.recipe == "inversion(of=tensor(3, 8, 8), layer=1, steps=1)"
    wish = channel("features.3", 0) - 2 * l2()
    assert repr(syntheses["feature_image"](objective=wish)) == f"feature_image(objective={wish!r})"


def test_layers_are_found_evenly_through_the_depth() -> None:
    model = Deep()
    assert evenly_spaced_layers(model, torch.zeros(1, 3, 12, 12), 3) == ["features.0", "features.2", "features.4"]
    assert evenly_spaced_layers(model, torch.zeros(1, 3, 12, 12), 1) == ["features.0"]
    assert evenly_spaced_layers(model, torch.zeros(1, 3, 12, 12), 9) == [f"features.{n}" for n in range(5)]
    assert evenly_spaced_layers(SmallNet(1), torch.zeros(1, 3, 12), 2) == ["first", "between"]
    with pytest.raises(ValueError, match="0 layers show nothing; use 1 or more"):
        evenly_spaced_layers(model, torch.zeros(1, 3, 12, 12), 0)


NONE: dict[str, Any] = {"layer": "features.4", "channel": 1, "size": 8, "steps": 1}


@pytest.mark.parametrize(
    ("kind", "settings", "says"),
    [
        (ValueError, {"size": None}, "the size of Deep's input is not known; give it, such as size=(224, 224)"),
        (
            ValueError,
            {"size": (8, 8, 8)},
            "size=(8, 8, 8) is not that of an input of Deep; give one length, or 2 (H, W)",
        ),
        (ValueError, {"size": 0}, "size=0 is not that of an input of Deep; give one length, or 2 (H, W)"),
        (ValueError, {"count": 0}, "count=0 and snapshots=0 can't be; use 1 or more, and 0 or more"),
        (ValueError, {"steps": -1}, "steps=-1 is no number of steps; use 0 or more"),
        (ValueError, {"channel": 5}, "there is no channel 5 in layer 'features.4'; it has 5, numbered 0 to 4"),
        (LookupError, {"layer": "feature.4"}, "Deep has no layer 'feature.4'; did you mean 'features.4'?"),
        (ValueError, {"channel": None}, "nothing is asked for; say one of channel (of a layer), target (a class), obj"),
        (ValueError, {"target": 1}, "channel and target are asked for together; say one of channel (of a layer), tar"),
        (ValueError, {"at": "a,b"}, "at is 'middle' or a place in the layer such as 6,6, not 'a,b'"),
        (ValueError, {"at": "9,9"}, "layer 'features.4' is (4, 4) in space; there is no unit at (9, 9)"),
        (ValueError, {"channel": None, "at": "1,1"}, "at is the place of a unit in a channel; say which channel too"),
        (ValueError, {"channel": None, "target": 7}, "there is no class 7; the model has 4, numbered 0 to 3"),
        (
            TypeError,
            {"channel": None, "objective": "x"},
            "objective is 'x'; give one such as cnnviz.objectives.channel('layer', 5)",
        ),
        (ValueError, {"diversity": 2.0}, "diversity is 2.0; a part is 0 to 1"),
        (TypeError, {"chanel": 2}, "feature_image has no setting 'chanel'; did you mean 'channel'?"),
        (ValueError, {"preprocessing": Preprocessing((0.5,), (0.5,))}, "the preprocessing is for 1 channels, and the"),
    ],
)
def test_what_can_not_be_made_is_refused_in_one_line(kind: type[Exception], settings: Any, says: str) -> None:
    with pytest.raises(kind) as error:
        synthesize(Deep(), "feature_image", **NONE | settings)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_other_refusals() -> None:
    with pytest.raises(LookupError, match=r"there is no synthesis 'feature_imag'; did you mean 'feature_image'\?"):
        synthesize(Deep(), "feature_imag")
    with pytest.raises(TypeError, match="3 is no synthesis; give a name, or a callable of an ascent"):
        synthesize(Deep(), 3)  # type: ignore[arg-type]  # the mistake that is tested
    with pytest.raises(TypeError, match=r"there is no setting 'steps' in .*, which has its settings in it"):
        synthesize(Deep(), syntheses["feature_image"](channel=1), steps=3)
    with pytest.raises(ValueError, match=r"the model is in training mode.*call model.eval\(\) first"):
        synthesize(Deep().train(), "feature_image")
    with pytest.raises(TypeError, match="a picture is given, and no preprocessing; give that too, or a tensor"):
        synthesize(Deep(), "inversion", of="cat.png")
    with pytest.raises(TypeError, match="a picture is a file, a PIL image or a tensor, not a list"):
        synthesize(Deep(), "inversion", of=[1])
    with pytest.raises(
        ValueError, match=r"what is given is torch.float32 \(8, 8\); Deep takes floating point \(N, 3, H"
    ):
        synthesize(Deep(), "inversion", of=torch.zeros(8, 8))
    with pytest.raises(ValueError, match=r"size=\(9, 9\) is asked for, and what is given is \(8, 8\)"):
        synthesize(Deep(), "inversion", of=torch.zeros(3, 8, 8), size=9)
    with pytest.raises(ValueError, match="2 inputs are given, and 3 are to be made; give one, or as many"):
        synthesize(Deep(), "inversion", of=torch.zeros(2, 3, 8, 8), count=3)
    with pytest.raises(ValueError, match="is not finite after 1 steps; take smaller ones, such as half the lr"):
        synthesize(Deep(), "inversion", of=torch.ones(3, 8, 8), layer=1, canvas="pixels", lr=1e30, steps=9)
    with pytest.raises(ValueError, match=r"blur is -1\.0; it is 0 or more, and below inf"):
        synthesize(Deep(), "class_image", target=1, blur=-1.0)
    unknown = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).eval()
    with pytest.raises(ValueError, match="Sequential has no convolution that tells how many channels it takes; give a"):
        synthesize(unknown, "class_image", target=1, size=(2, 2))
    made = synthesize(unknown, "class_image", target=1, size=(2, 2), preprocessing=PLAIN, steps=1)
    assert made.inputs.shape == (1, 3, 2, 2)


@pytest.mark.parametrize(("returns", "says"), [(3, "gave a int"), (torch.zeros(2), r"gave \(2,\)")])
def test_what_a_synthesis_returns_is_checked(returns: Any, says: str) -> None:
    with pytest.raises((TypeError, ValueError), match=says + r"; a synthesis gives \(N, C, \*spatial\), with 4 dimens"):
        synthesize(Deep(), lambda ascent: returns, size=8)


def test_an_objective_is_one_number_for_each_input() -> None:
    def wrong(seen: Any) -> Tensor:
        return seen.output

    wrong.layers, wrong.reads_output = frozenset(), True  # type: ignore[attr-defined]  # stands for an objective

    def make(ascent: Ascent) -> Tensor:
        canvas = FreeCanvas(torch.zeros(ascent.shape()))
        return ascent.ascend(canvas, wrong, torch.optim.SGD(canvas.parameters), 1)  # type: ignore[arg-type]  # the same

    with pytest.raises(ValueError, match=r"gave \(1, 4\); it gives one number for each input, \(1,\)"):
        synthesize(Deep(), make, size=8)


# How it is drawn and kept


def kept(inputs: Tensor, preprocessing: Preprocessing | None = None) -> Synthesized:
    return Synthesized(inputs, torch.tensor([[1.0], [2.5]]), "made()", preprocessing=preprocessing)


def test_images_have_their_own_colours_and_what_is_beyond_is_stretched() -> None:
    inputs = torch.tensor([-2.0, 0.0, 2.0]).view(1, 1, 1, 3).expand(1, 3, 2, 3)
    (row,) = kept(inputs, PLAIN).pictures()[:, 0]
    np.testing.assert_array_equal(row, [[0] * 3, [128] * 3, [255] * 3])
    np.testing.assert_array_equal(kept(inputs).pictures()[0, 0], row)  # without a preprocessing the range is the same
    (wide,) = kept(inputs * 10 + 5, PLAIN).pictures()[:, 0]
    np.testing.assert_array_equal(wide, row)
    (soft,) = kept(inputs / 2, PLAIN).pictures()[:, 0]
    np.testing.assert_array_equal(soft[:, 0], [64, 128, 191])
    (strong,) = kept(inputs / 2, PLAIN).pictures(contrast=2.0)[:, 0]
    np.testing.assert_array_equal(strong, row)
    gray = kept(inputs[:, :1], Preprocessing((0.5,), (0.25,))).pictures()
    np.testing.assert_array_equal(gray[0, 0], row)


def test_signals_are_lines_and_volumes_slices() -> None:
    signal = kept(torch.stack([torch.linspace(-1, 1, 50), torch.zeros(50)])[None]).pictures()
    assert signal.shape == (1, 240, 640, 3)
    dark = signal[0, :120].min(2) < 100
    tops = [int(np.flatnonzero(dark[:, column]).mean()) for column in (20, 320, 620)]
    assert tops[0] > tops[1] > tops[2]  # it rises
    volume = torch.zeros(1, 1, 9, 4, 5)
    volume[0, 0, 4] = 2
    sheet = kept(volume).pictures()
    assert sheet.shape == (1, 3 * 5 - 1, 3 * 6 - 1, 3)
    assert sheet[0, 5:9, 6:11].min() == 255
    assert sheet[0, :4, :5].max() == 128
    with pytest.raises(ValueError, match=r"inputs of \(1, 3\) can't be drawn; \(N, C, \*spatial\) has 1 to 3 in space"):
        kept(torch.zeros(1, 3)).pictures()


def test_what_was_made_is_kept(tmp_path: Path) -> None:
    made = synthesize(Deep(), "feature_image", **NONE, count=2, snapshots=1, preprocessing=PLAIN)
    files = made.save(tmp_path / "made.png")
    assert files == [tmp_path / "made-0.png", tmp_path / "made-1.png"]
    with Image.open(files[1]) as picture:
        np.testing.assert_array_equal(np.asarray(picture), made.pictures()[1])
    (values,) = made.save(tmp_path / "made.safetensors")
    with safe_open(values, framework="pt") as file:
        assert torch.equal(file.get_tensor("inputs"), made.inputs)
        assert torch.equal(file.get_tensor("history"), made.history)
        assert torch.equal(file.get_tensor("snapshot.1"), made.inputs)
        assert made.recipe in file.metadata()["cnnviz"]
    with pytest.raises(ValueError, match=r"made.gif has no suffix that can be written; use .safetensors or .png"):
        made.save(tmp_path / "made.gif")
    assert {"text/html", "text/plain"} == set(made._repr_mimebundle_()), "of two there is no one picture"
    single = replace(made, inputs=made.inputs[:1])._repr_mimebundle_()["image/png"]
    with Image.open(io.BytesIO(b64decode(single))) as picture:
        np.testing.assert_array_equal(np.asarray(picture), made.pictures()[0])
    assert len(made) == 2
    assert kept(torch.zeros(1, 3, 2, 2)).outcome() == "rose from 1 to 2.5 in 2 steps"
    assert Synthesized(torch.zeros(1, 3, 2, 2), torch.zeros(0, 1), "made()").outcome() == "took no steps"


# Trained networks


def test_a_trained_channel_is_driven_more_than_by_photographs(squeezenet: nn.Module, photographs: Tensor) -> None:
    from cnnviz.images.preprocessing import IMAGENET

    how: dict[str, Any] = {"layer": "features.12", "channel": 172, "size": 112, "steps": 24}
    made = synthesize(squeezenet, "feature_image", preprocessing=IMAGENET, **how)
    layers = squeezenet.get_submodule("features")
    with torch.no_grad():
        ours, *theirs = (float(layers(each[None])[0, 172].mean()) for each in (made.inputs[0], *photographs))
    assert ours > 2 * max(theirs)
    pictures = made.pictures()
    assert ((pictures <= 2) | (pictures >= 253)).mean() < 0.05


def test_a_trained_layer_is_inverted(squeezenet: nn.Module, photographs: Tensor) -> None:
    from cnnviz.images.preprocessing import IMAGENET

    how: dict[str, Any] = {"layer": "features.3", "preprocessing": IMAGENET, "steps": 96}
    made = synthesize(squeezenet, "inversion", of=photographs[1:], **how)
    assert float(made.notes["relative_error"]) <= 0.1
    assert float((made.inputs - photographs[1:]).abs().mean()) < 0.3


def test_the_bundled_network_has_feature_images() -> None:
    made = synthesize(cnnviz.load_model("demo"), "feature_image", target="star", steps=24)
    assert made.inputs.shape == (1, 3, 96, 96)
    assert float(made.history[-1]) > 20
