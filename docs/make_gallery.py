"""Draws the gallery: every method with every renderer, on pictures that scikit-image ships.

``python docs/make_gallery.py --model squeezenet1_0 --weights squeezenet1_0-imagenet.pth`` writes docs/gallery/*.jpg,
docs/gallery.md and the pictures of the README. Signals and volumes are explained on networks trained here, in seconds.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import skimage
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

import cnnviz

HERE = Path(__file__).parent
RANKED = {"line": 1, "projection": 3, "slices": 3}  # the renderers that do not draw images
FIGURES = ("by_channel", "channels", "confusion_matrix", "panels")
MADE = {  # pictures that docs/make_pictures.py draws
    "feature_image": "filters",
    "class_image": "class",
    "deep_dream": "dream",
    "inversion": "inverted",
}


def write(name: str, picture: NDArray[np.uint8]) -> str:
    Image.fromarray(picture).save(HERE / "gallery" / f"{name}.jpg", quality=88)
    return f"![{name}](gallery/{name}.jpg)"


def by_renderer(explanation: cnnviz.Explanation, names: list[str]) -> NDArray[np.uint8]:
    return cnnviz.grid({name: replace(explanation, renderer=name) for name in names}, columns=5)


class SpikeNet(nn.Module):
    """Tells the class of a blob in a signal or a volume."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        conv: Any = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
        self.body = nn.Sequential(
            conv(1, 16, 5, padding=2), nn.ReLU(), conv(16, 32, 5, stride=2, padding=2), nn.ReLU(),
            conv(32, 32, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(32, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        scores: Tensor = self.head(self.body(inputs).flatten(2).mean(2))
        return scores


def blobs(count: int, rank: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noise with a narrow blob (class 0) or a wide one (class 1) somewhere."""
    generator = torch.Generator().manual_seed(seed)
    size = 160 if rank == 1 else 24
    labels = torch.randint(2, (count,), generator=generator)
    widths = torch.where(labels == 0, 0.02, 0.05) * (1 if rank == 1 else 2.5)
    axis = torch.linspace(0, 1, size)
    total = torch.zeros(count, *(1,) * rank)
    for dim in range(rank):
        centre = 0.2 + 0.6 * torch.rand(count, 1, generator=generator)
        shape = [count, *(size if other == dim else 1 for other in range(rank))]
        total = total + (((axis - centre) / widths[:, None]) ** 2).view(shape)
    noise = 0.15 * torch.randn(count, 1, *(size,) * rank, generator=generator)
    return torch.exp(-total / 2)[:, None] + noise, labels


def trained(rank: int) -> SpikeNet:
    torch.manual_seed(0)
    network = SpikeNet(rank)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for step in range(200 if rank == 1 else 60):
        inputs, labels = blobs(32, rank, seed=step)
        optimizer.zero_grad()
        F.cross_entropy(network(inputs), labels).backward()
        optimizer.step()
    return network.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--weights")
    options = parser.parse_args()
    model = cnnviz.load_model(options.model, weights=options.weights)
    cat = [Image.fromarray(skimage.data.chelsea())]
    target = 281  # tabby
    names = [name for name in cnnviz.renderers if name not in RANKED and name not in FIGURES]
    methods = list(cnnviz.attributions)
    results = cnnviz.explain(model, cat, methods, target=target)
    several = {name: results.pop(name) for name in methods if results[name].renderer in FIGURES}

    (HERE / "pictures").mkdir(exist_ok=True)
    best = ("grad_cam", "layer_cam", "guided_grad_cam", "integrated_gradients")
    pictures = {"cat": (cat, target), "cup": ([Image.fromarray(skimage.data.coffee())], 967)}
    for name, (picture, label) in pictures.items():
        grid = cnnviz.grid(cnnviz.explain(model, picture, best, target=label))
        Image.fromarray(grid).save(HERE / "pictures" / f"{name}.jpg", quality=90)
    several["saliency_confusion"].save(HERE / "pictures" / "confusion.png")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "cnnviz", "demo", "-o", folder], check=True, stdout=subprocess.DEVNULL)
        shutil.copy(Path(folder) / "methods.png", HERE / "pictures" / "demo.png")
        shutil.copy(Path(folder) / "shortcut.png", HERE / "pictures" / "shortcut.png")

    page = [
        "# Gallery",
        "",
        "Every method with every renderer, on pictures of scikit-image. Made by `docs/make_gallery.py`.",
    ]
    page += ["", "## All methods", "", write("methods", cnnviz.grid(results, columns=5))]
    for name, explanation in results.items():
        page += ["", f"## {name}", "", cnnviz.attributions[name].summary, ""]
        page += [
            write(name, by_renderer(explanation, names)),
            "",
            write(f"{name}-panels", explanation.render("panels")[0]),
        ]
    for name, explanation in several.items():
        page += ["", f"## {name}", "", cnnviz.attributions[name].summary, "", write(name, explanation.render()[0])]
    for renderer, rank in RANKED.items():
        inputs, labels = blobs(1, rank, seed=1000)
        network, chosen = trained(rank), ["grad_cam", "layer_cam", "guided_backprop", "integrated_gradients"]
        answers = cnnviz.explain(network, inputs, chosen, target=labels, categories=["narrow blob", "wide blob"])
        page += ["", f"## {renderer}", "", cnnviz.renderers[renderer].summary]
        for name, explanation in answers.items():
            page += ["", f"{name}:", "", write(f"{renderer}-{name}", explanation.render(renderer)[0])]
    page += ["", "# Syntheses", "", "Inputs that were made. The commands are on the page [Where it began](seeds.md)."]
    for name, picture in MADE.items():
        page += ["", f"## {name}", "", cnnviz.syntheses[name].summary, "", f"![{name}](pictures/seeds/{picture}.png)"]
    (HERE / "gallery.md").write_text("\n".join(page) + "\n")


if __name__ == "__main__":
    main()
