"""The demonstration: two bundled networks, pictures whose evidence is known, a report. Needs no network connection."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cnnviz.cli.errors import say
from cnnviz.cli.report import Figure, page

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cnnviz.demo.drawing import Drawn
    from cnnviz.explanations.explanation import Explanation

METHODS = ("grad_cam", "layer_cam", "guided_backprop", "guided_grad_cam", "integrated_gradients", "smoothgrad")
SHOWN = 4  # pictures in a grid; the others are alike


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Made if it is not there.", file_okay=False)
    ] = Path("cnnviz-demo"),
) -> None:
    """Explain bundled pictures with bundled networks, offline, and write pictures and a report."""
    (output / "pictures").mkdir(parents=True, exist_ok=True)
    (output / "tagged").mkdir(exist_ok=True)
    figures = [_methods(output), _shortcut(output), _wrong_tag(output)]
    _write(output / "index.html", page("What a network looked at", INTRODUCTION, figures, _overlays(output)).encode())
    say(f"open {output / 'index.html'}")


INTRODUCTION = (
    "Two small networks, which come with cnnviz, name the shape in a picture. The right explanation is known: "
    "the shapes are drawn, with every pixel of them recorded. Each figure has a command for all pictures."
)


def _methods(folder: Path) -> Figure:
    """Several methods side by side."""
    from cnnviz import demo
    from cnnviz.drawing.comparison import grid
    from cnnviz.explanations.explain import explain
    from cnnviz.models.loading import load_model

    drawn = demo.pictures("demo")
    for name, picture in zip(_names(drawn), drawn.pictures, strict=True):
        _write(folder / "pictures" / f"{name}.png", _png(picture))
    inputs = demo.as_inputs(drawn.pictures[:SHOWN])
    _picture(folder / "methods.png", grid(explain(load_model("demo"), inputs, METHODS)))
    return Figure(
        "methods.png",
        "Several answers to one question",
        "Why does the network demo see this shape? Class activation maps are coarse and know the class; "
        "backpropagated maps are fine, and some of them know the class less well.",
        f"cnnviz explain {_typed(folder / 'pictures')} --method {','.join(METHODS)} -o methods.png",
    )


def _shortcut(folder: Path) -> Figure:
    """A network that learned something else than it was meant to, found out."""
    from cnnviz import demo
    from cnnviz.drawing.comparison import grid
    from cnnviz.explanations.explain import explain
    from cnnviz.models.loading import load_model

    drawn = demo.pictures("demo-shortcut")
    for name, picture in zip(_names(drawn), drawn.pictures, strict=True):
        _write(folder / "tagged" / f"{name}.png", _png(picture))
    inputs, labels = demo.as_inputs(drawn.pictures), drawn.labels.tolist()
    shares, shown = {}, {}
    for name in demo.NETWORKS:
        model = load_model(name)
        shares[name] = _share(explain(model, inputs, "grad_cam", target=labels), drawn.tags)
        shown[name] = explain(model, inputs[:SHOWN], "grad_cam", target=labels[:SHOWN])
    area = float(drawn.tags.mean())
    for name, share in shares.items():
        say(f"{name}: {share:.0%} of Grad-CAM's positive energy is on the tag, which is {area:.0%} of the picture")
    _picture(folder / "shortcut.png", grid(shown))
    return Figure(
        "shortcut.png",
        "A shortcut, found",
        "Grad-CAM of both networks. demo-shortcut was trained where a tag in a corner gave the class away. It names "
        f"these pictures as well as demo does, but {shares['demo-shortcut']:.0%} of the positive energy of its "
        f"Grad-CAM is on the tag, {area:.0%} of the picture; of demo's it is {shares['demo']:.0%}.",
        f"cnnviz explain {_typed(folder / 'tagged')} --model demo-shortcut -o shortcut.png",
    )


def _wrong_tag(folder: Path) -> Figure:
    """What the shortcut does where it misleads."""
    from cnnviz import demo
    from cnnviz.demo.drawing import draw
    from cnnviz.explanations.explain import explain
    from cnnviz.models.loading import load_model

    drawn = draw(len(demo.CATEGORIES), seed=2022, tag="wrong", held_out=True)
    inputs, labels = demo.as_inputs(drawn.pictures), drawn.labels.tolist()
    answer = explain(load_model("demo-shortcut"), inputs, "saliency_confusion", target=labels)
    followed = int((answer.notes["prediction"].numpy() == drawn.tag_labels).sum())
    say(f"demo-shortcut: {followed} of {len(labels)} predictions follow a tag that tells the wrong class")
    _write(folder / "wrong-tag.png", _png(drawn.pictures[0]))
    _picture(folder / "confusion.png", answer[0].render()[0])
    truth, picture = _names(drawn)[0], _typed(folder / "wrong-tag.png")
    return Figure(
        "confusion.png",
        "What spoke for the wrong class",
        f"With the tag of another class, {followed} of {len(labels)} predictions follow the tag. The saliency "
        f"confusion matrix of one of them, a {truth}: what speaks against and for the true class, and against and "
        "for the predicted one, on one scale.",
        f"cnnviz confusion {picture} --model demo-shortcut --target {truth} -o confusion.png",
    )


def _overlays(folder: Path) -> list[Figure]:
    """Each picture with its map over it."""
    from cnnviz import demo
    from cnnviz.explanations.explain import explain
    from cnnviz.models.loading import load_model

    drawn = demo.pictures("demo")
    answer = explain(load_model("demo"), demo.as_inputs(drawn.pictures), "layer_cam")
    figures = []
    for name, each, title in zip(_names(drawn), answer, answer.titles(), strict=True):
        _picture(folder / f"{name}_layer_cam.png", each.render("overlay")[0])
        figures.append(Figure(f"{name}_layer_cam.png", title, "LayerCAM over the picture."))
    return figures


def _share(answer: Explanation, masks: NDArray[np.bool_]) -> float:
    """Which part of the positive values lies on the masks (N, H, W), on average."""
    import torch

    from cnnviz.images.resampling import resize

    warm = resize(answer.values.clamp(min=0), answer.inputs.shape[2:]).sum(1)
    return float(((warm * torch.from_numpy(masks)).sum((1, 2)) / warm.sum((1, 2))).mean())


def _names(drawn: Drawn) -> Sequence[str]:
    from cnnviz import demo

    return [demo.CATEGORIES[label] for label in drawn.labels]


def _typed(path: Path) -> str:
    return shlex.quote(str(path))


def _picture(path: Path, picture: NDArray[np.uint8]) -> None:
    _write(path, _png(picture))
    say(str(path))


def _png(picture: NDArray[np.uint8]) -> bytes:
    from cnnviz.images.files import encoded

    return encoded(picture, ".png")


def _write(path: Path, content: bytes) -> None:
    from cnnviz.images.files import write

    write(path, content)
