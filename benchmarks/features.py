"""How strongly images made for a channel drive it, beside photographs and seed 003; and how near inversions come.

``python -m benchmarks.features`` draws ten channels of a layer at random and prints the channel's mean over space for
our ``feature_image``, for the picture that drives it most of 160 photographs (and, for the bundled network, of 160
held-out drawn pictures), and for ``multiscale_ascent``, given at least as many forward passes as ours needed.

Every image counts as the picture it is drawn as: 8 bits a channel, read back through the preprocessing. Photographs
and ours have the network's own size (224 or 96 pixels). Of seed 003's way counts the best of four: at its own last size
(408 pixels) or ending at the network's, stretched to the range of pictures as it is drawn, with and without the doubled
contrast. Its raw values, which lie far beyond those of pictures, are told in brackets; no picture has them. It climbs
the convolution before the ReLU where there is one. A channel's mean depends little on the input's size, as it is a
mean over places.

``--inversion`` prints the relative feature error of inversions after more and more steps.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Column, Table
from torch import Tensor

import cnnviz
from benchmarks.networks import ASSETS, LAYERS, WEIGHTS, photographs, weights_of
from cnnviz import LoadedModel, Synthesized
from cnnviz.demo import drawing
from cnnviz.engine.feature_extraction import FeatureExtractor
from cnnviz.images import Bounds

SCALES = 12  # of seed 003's way
ENDS = 2  # of 255: what is so near black or white is at an end of the range


@dataclass(frozen=True)
class Case:
    """A network, its layer, and for each channel what seed 003's way climbs: the convolution before its ReLU."""

    model: LoadedModel
    layer: str
    pictures: Tensor
    """(K, C, H, W) that the channels of the layer are driven by."""

    def climbed(self, channel: int) -> tuple[str, int]:
        """A Fire module's channels are those of two convolutions; elsewhere sums go through the ReLU."""
        parts = dict(self.model.module.get_submodule(self.layer).named_modules())
        if "expand1x1" not in parts:
            return self.layer, channel
        first = int(parts["expand1x1"].weight.shape[0])
        return (f"{self.layer}.expand1x1", channel) if channel < first else (f"{self.layer}.expand3x3", channel - first)


@dataclass(frozen=True)
class Row:
    """A channel's mean over space."""

    channel: int
    ours: float
    pictures: float
    theirs: float
    raw: float
    ends: float
    """Share of our picture's values at either end of the range."""
    theirs_ends: float
    passes: tuple[int, int]

    @property
    def holds(self) -> bool:
        return self.ours >= 2 * self.pictures and self.ours > self.theirs


def cases(names: Sequence[str]) -> list[Case]:
    """The networks by name: squeezenet1_0 where its weights are at hand, and demo."""
    made = []
    for name in names:
        model = cnnviz.load_model(name, weights=weights_of(name) if name in WEIGHTS else None)
        pictures = [model.preprocessing(Image.open(file).convert("RGB")) for file in photographs()]
        if name == "demo":
            drawn = drawing.draw(160, seed=7, held_out=True).pictures
            pictures += [model.preprocessing(Image.fromarray(picture)) for picture in drawn]
        made.append(Case(model, LAYERS.get(name, "layer3"), torch.stack(pictures)))
    return made


def means(case: Case, inputs: Tensor) -> Tensor:
    """Each channel's mean over space, (N, C)."""
    extractor = FeatureExtractor(case.model.module, [case.layer], output=False, graph=False)
    return torch.cat([extractor(part).layer(case.layer).flatten(2).mean(2) for part in torch.split(inputs, 8)])


def read_back(case: Case, pictures: NDArray[np.uint8]) -> Tensor:
    """Pictures (N, H, W, 3) as the network takes them."""
    shares = torch.from_numpy(pictures).movedim(-1, 1).float() / 255
    return Bounds.of(case.model.preprocessing, shares).inputs(shares)


def at_the_ends(pictures: NDArray[np.uint8]) -> float:
    """Which share of the values is nearly black or white."""
    return float(((pictures <= ENDS) | (pictures >= 255 - ENDS)).mean())


def counted(model: LoadedModel, name: str, **settings: object) -> tuple[Synthesized, int]:
    """What a synthesis makes, and in how many forward passes."""
    passes = 0

    def count(*_: object) -> None:
        nonlocal passes
        passes += 1

    with model.module.register_forward_pre_hook(count):
        return cnnviz.synthesize(model, name, **settings), passes  # type: ignore[arg-type]  # by name


def measure(case: Case, channels: Sequence[int], steps: int = 256, seed: int = 0) -> list[Row]:
    """Ours, the photographs and seed 003's way, for each channel."""
    best = means(case, case.pictures).amax(0)
    return [compared(case, channel, float(best[channel]), steps, seed) for channel in channels]


def compared(case: Case, channel: int, best: float, steps: int, seed: int) -> Row:
    """One channel; best: its mean on the picture that drives it most."""
    made, passes = counted(case.model, "feature_image", layer=case.layer, channel=channel, steps=steps, seed=seed)
    layer, index = case.climbed(channel)
    settings = {"layer": layer, "channel": index, "steps": -(-passes // SCALES), "seed": seed}
    theirs: list[tuple[float, float]] = []  # the channel's mean on the drawn picture, and how much is at the ends
    raw: list[float] = []
    for size in (None, made.inputs.shape[-1]):
        other, other_passes = counted(case.model, "multiscale_ascent", size=size, **settings)
        raw.append(float(means(case, other.inputs)[0, channel]))
        theirs += [drawn_value(case, channel, other.pictures(contrast)) for contrast in (1.0, 2.0)]
    value, ends = drawn_value(case, channel, made.pictures())
    return Row(channel, value, best, max(theirs)[0], max(raw), ends, max(theirs)[1], (passes, other_passes))


def drawn_value(case: Case, channel: int, pictures: NDArray[np.uint8]) -> tuple[float, float]:
    """The channel's mean on the first picture as it is drawn, and the share of values at the ends of the range."""
    return float(means(case, read_back(case, pictures))[0, channel]), at_the_ends(pictures)


def inversions(picture: Path, layers: Sequence[str], steps: int = 256, every: int = 32) -> dict[str, dict[int, float]]:
    """By layer of squeezenet1_0, the relative feature error after so many steps."""
    (case,) = cases(["squeezenet1_0"])
    errors = {}
    for layer in layers:
        made = cnnviz.synthesize(case.model, "inversion", of=str(picture), layer=layer, steps=steps, snapshots=every)
        extractor = FeatureExtractor(case.model.module, [layer], output=False, graph=False)
        target = extractor(case.model.preprocessing(Image.open(picture).convert("RGB"))[None]).layer(layer)
        errors[layer] = {
            step: float((extractor(inputs).layer(layer) - target).norm() / target.norm())
            for step, inputs in made.snapshots.items()
        }
    return errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="*", default=["squeezenet1_0", "demo"])
    parser.add_argument("--channels", type=int, default=10)
    parser.add_argument("--steps", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--inversion", action="store_true")
    options = parser.parse_args()
    console = Console()
    if options.inversion:
        for name in ("cat_dog", "snake"):
            errors = inversions(ASSETS / "images" / "seed" / f"{name}.png", ["features.3", "features.7"], options.steps)
            steps = [f"after {step}" for step in next(iter(errors.values()))]
            table = Table(Column("layer", no_wrap=True), *steps, title=f"relative feature error, {name}")
            for layer, by_step in errors.items():
                table.add_row(layer, *(f"{error:.3f}" for error in by_step.values()))
            console.print(table)
        return
    for case in cases(options.networks):
        count = int(means(case, case.pictures[:1]).shape[1])
        generator = torch.Generator().manual_seed(options.seed)
        channels = torch.randperm(count, generator=generator)[: options.channels].tolist()
        title = f"{case.model.name} {case.layer}: mean of the channel"
        columns = ("channel", "ours", "best picture", "seed 003 (raw)", "passes", "at the ends (%)", "")
        table = Table(*columns, title=title)
        rows = measure(case, channels, options.steps, options.seed)
        for row in rows:
            table.add_row(
                str(row.channel),
                f"{row.ours:.4g}",
                f"{row.pictures:.4g}",
                f"{row.theirs:.4g} ({row.raw:.4g})",
                f"{row.passes[0]}, {row.passes[1]}",
                f"{100 * row.ends:.1f}, {100 * row.theirs_ends:.1f}",
                "" if row.holds else "no",
            )
        console.print(table)
        held = sum(row.holds for row in rows)
        console.print(f"at least twice the best picture and above seed 003's way: {held} of {len(rows)}")


if __name__ == "__main__":
    main()
