"""Where answers go: a file for each picture and method, or one for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cnnviz.cli.method_options import converted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cnnviz.explanations.explanation import Explanation

VALUES = ".safetensors"


@dataclass(frozen=True)
class Destination:
    """A folder that takes many files, or one file."""

    path: Path
    folder: bool


@dataclass(frozen=True)
class Drawing:
    """A renderer: the one that was asked for, or each explanation's own; with those of the settings that it knows."""

    renderer: str | None
    given: Mapping[str, str]
    others: frozenset[str] = frozenset()
    """Settings that the methods have; no renderer need know them."""

    def __call__(self, explanation: Explanation) -> NDArray[np.uint8]:
        from cnnviz.registry.registry import renderers

        name = self.name(explanation)
        return explanation.render(name, **converted(renderers[name], self.given))

    def name(self, explanation: Explanation) -> str:
        return self.renderer or explanation.usual_renderer

    def check(self, explanations: Iterable[Explanation]) -> None:
        """Raises TypeError for a setting that neither the methods nor any of the renderers have."""
        from cnnviz.registry.registry import renderers

        used = {name: renderers[name] for name in map(self.name, explanations)}
        for setting in self.given.keys() - self.others:
            if not any(setting in renderer.settings for renderer in used.values()):
                next(iter(used.values())).bind(**{setting: None})  # raises, and knows the nearest name


def destination(output: str | None, pictures: Sequence[Path], methods: Sequence[str], show: bool) -> Destination:
    """What ``-o`` means. Raises OSError or ValueError for what could not be written at the end of the work."""
    from cnnviz.images.files import PICTURES

    path = Path(output or ".")
    if path.is_dir() or (output or "").endswith("/") or not path.suffix:
        if path.exists() and not path.is_dir():
            raise NotADirectoryError(f"{path} is a file; say -o {path}.png, or name another folder")
        return Destination(path, folder=True)
    suffix = path.suffix.lower()
    if suffix not in (VALUES, *PICTURES):
        kinds = ", ".join((VALUES, *PICTURES))
        raise ValueError(f"{path} has no suffix that can be written ({kinds}); for a folder say -o {path}/")
    if suffix == VALUES and len(methods) > 1:
        raise ValueError(f"{path} keeps the values of one method, and {len(methods)} were asked for; run once for each")
    if suffix == VALUES and show:
        raise ValueError(f"--show opens pictures, and {path} keeps values; leave one of them out")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} does not exist; make it first")
    if path.resolve() in {picture.resolve() for picture in pictures}:
        raise ValueError(f"{path} is the picture to explain, and would be replaced; choose another name")
    return Destination(path, folder=False)


def file_names(folder: Path, pictures: Sequence[Path], methods: Sequence[str]) -> dict[tuple[Path, str], Path]:
    """A file in the folder for each picture and method: no two alike, and none of them a picture that is explained."""
    taken = {picture.resolve() for picture in pictures}
    names: dict[tuple[Path, str], Path] = {}
    for picture in pictures:
        for method in methods:
            name = f"{picture.stem}_{method}".replace("/", "-").replace(":", "-")
            path, number = folder / f"{name}.png", 2
            while path.resolve() in taken:
                path, number = folder / f"{name}-{number}.png", number + 1
            taken.add(path.resolve())
            names[picture, method] = path
    return names


def write_together(path: Path, answers: Mapping[str, Sequence[Explanation]], drawing: Drawing) -> Explanation:
    """All answers, by method and in batches, in one file: a picture, a grid of pictures, or values. Returns the first.

    Raises ValueError for inputs of different sizes.
    """
    joined = {name: _joined(batches) for name, batches in answers.items()}
    first = next(iter(joined.values()))
    drawing.check(joined.values())
    if path.suffix.lower() == VALUES or (len(first) == 1 and len(joined) == 1):
        first.save(path, drawing)
        return first
    from cnnviz.drawing.comparison import grid
    from cnnviz.images.files import encoded, write

    write(path, encoded(grid(joined, drawing), path.suffix))
    return first


def _joined(batches: Sequence[Explanation]) -> Explanation:
    from cnnviz.explanations.explanation import joined

    try:
        return joined(batches)
    except ValueError:
        way_out = "give --size, or a folder, such as -o maps/"
        raise ValueError(f"the pictures reach the model in different sizes; {way_out}") from None
