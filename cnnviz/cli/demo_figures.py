"""The figures of the demonstration's report: each is drawn, written beside the page and described."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cnnviz import demo
from cnnviz.cli.demo_page import Figure
from cnnviz.cli.errors import print_line
from cnnviz.cli.shell_words import shell_line
from cnnviz.demo.drawing import Drawn, draw
from cnnviz.drawing.comparison import grid
from cnnviz.explanations.evaluate import evaluate
from cnnviz.explanations.explain import explain
from cnnviz.images.writing import encoded, write
from cnnviz.models.loading import load_model
from cnnviz.run.resolve_target import top

METHODS = ("grad_cam", "layer_cam", "guided_backprop", "guided_grad_cam", "integrated_gradients", "smoothgrad")
IN_REPORT = ("grad_cam", "layer_cam", "gradient", "guided_backprop")
IN_GRID = 4  # pictures in a grid; the others are alike


def methods(folder: Path) -> Figure:
    """Several methods side by side."""
    drawn = demo.pictures("demo")
    _write_each(folder / "pictures", drawn)
    inputs = demo.as_inputs(drawn.pictures[:IN_GRID])
    _write(folder / "methods.png", grid(explain(load_model("demo"), inputs, METHODS)))
    return Figure(
        "methods.png",
        "Several answers to one question",
        "Why does the network demo see this shape? Class activation maps are coarse and depend on the class. "
        "Gradient maps are fine, and some of them depend less on the class.",
        f"cnnviz explain {_quoted(folder / 'pictures')} --method {','.join(METHODS)} -o methods.png",
    )


def shortcut(folder: Path) -> Figure:
    """A network that learned something else than it was meant to, found out."""
    drawn = demo.pictures("demo-shortcut")
    _write_each(folder / "tagged", drawn)
    inputs, labels = demo.as_inputs(drawn.pictures), drawn.labels.tolist()
    explanations = {name: explain(load_model(name), inputs, "grad_cam", target=labels) for name in demo.NETWORKS}
    area = float(drawn.tags.mean())
    shares = {}
    for name, explanation in explanations.items():
        share = float(evaluate(explanation, "mass_inside", masks=drawn.tags, sign="positive").mean())
        shares[name] = share
        print_line(
            f"{name}: {share:.0%} of Grad-CAM's positive energy is on the tag, which is {area:.0%} of the picture"
        )
    _write(folder / "shortcut.png", grid({name: part[:IN_GRID] for name, part in explanations.items()}))
    return Figure(
        "shortcut.png",
        "A shortcut, found",
        "Grad-CAM of both networks. demo-shortcut was trained where a tag in a corner gave the class away. It names "
        f"these pictures as well as demo does, but {shares['demo-shortcut']:.0%} of the positive energy of its "
        f"Grad-CAM is on the tag, {area:.0%} of the picture; of demo's it is {shares['demo']:.0%}. The command draws "
        "the maps of demo-shortcut.",
        f"cnnviz explain {_quoted(folder / 'tagged')} --model demo-shortcut -o shortcut.png",
    )


def wrong_tag(folder: Path) -> Figure:
    """What the shortcut does where it misleads."""
    drawn = draw(len(demo.CATEGORIES), seed=2022, tag="wrong", held_out=True)
    inputs, labels = demo.as_inputs(drawn.pictures), drawn.labels.tolist()
    explanation = explain(load_model("demo-shortcut"), inputs, "saliency_confusion", target=labels)
    followed = int((explanation.notes["prediction"].numpy() == drawn.tag_labels).sum())
    print_line(f"demo-shortcut: {followed} of {len(labels)} predictions follow a tag that tells the wrong class")
    write(folder / "wrong-tag.png", encoded(drawn.pictures[0], ".png"))
    _write(folder / "confusion.png", explanation[0].render()[0])
    truth, picture = demo.CATEGORIES[labels[0]], _quoted(folder / "wrong-tag.png")
    return Figure(
        "confusion.png",
        "What spoke for the wrong class",
        f"With the tag of another class, {followed} of {len(labels)} predictions follow the tag. The saliency "
        f"confusion matrix of one of them, a {truth}: what speaks against and for the true class, and against and "
        "for the predicted one, on one scale. A panel without colours says that nothing did.",
        f"cnnviz confusion {picture} --model demo-shortcut --target {truth} -o confusion.png",
    )


def overlays(folder: Path) -> list[Figure]:
    """Each picture with its map over it."""
    drawn = demo.pictures("demo")
    explanation = explain(load_model("demo"), demo.as_inputs(drawn.pictures), "layer_cam")
    figures = []
    for label, picture, title in zip(drawn.labels, explanation.render("overlay"), explanation.titles(), strict=True):
        file = f"{demo.CATEGORIES[label]}_layer_cam.png"
        _write(folder / file, picture)
        figures.append(Figure(file, title, "LayerCAM over the picture."))
    return figures


def report(folder: Path) -> str:
    """The report of the pictures, beside the page. Returns the name of its file."""
    files = [folder / "pictures" / f"{name}.png" for name in demo.CATEGORIES]
    model = load_model("demo")
    explanations = explain(model, files, IN_REPORT, target=top(3))
    print_line(str(explanations.report(folder / "report.html", model=model, title="What the network demo looks at")))
    return "report.html"


def _write_each(folder: Path, drawn: Drawn) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for label, picture in zip(drawn.labels, drawn.pictures, strict=True):
        write(folder / f"{demo.CATEGORIES[label]}.png", encoded(picture, ".png", marked=False))


def _write(path: Path, picture: NDArray[np.uint8]) -> None:
    write(path, encoded(picture, ".png"))
    print_line(str(path))


def _quoted(path: Path) -> str:
    return shell_line([str(path)])
