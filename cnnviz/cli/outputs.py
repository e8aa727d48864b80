"""Where results go: a file for each picture and method, or one for all of them; and what draws them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnnviz.cli.errors import print_failure
from cnnviz.cli.method_options import converted
from cnnviz.cli.places import own_folder, settle
from cnnviz.drawing.comparison import grid, grid_pages
from cnnviz.drawing.montage import Page
from cnnviz.explanations.explanation import Explanation
from cnnviz.explanations.joining import joined
from cnnviz.explanations.on_original import FigureError
from cnnviz.images.originals import At
from cnnviz.images.writing import PICTURES, encoded, write
from cnnviz.registry.protocols import Renderer
from cnnviz.registry.registry import renderers

VALUES = ".safetensors"


STDOUT = Path("-")
SHOWN = 4  # windows that --show opens


@dataclass(frozen=True)
class Destination:
    """A folder that takes many files, or one file, or standard output."""

    path: Path
    folder: bool

    def write(self, content: bytes) -> None:
        """Put the only answer in place."""
        if self.path == STDOUT:
            try:
                sys.stdout.buffer.write(content)
                sys.stdout.buffer.flush()
            except OSError as error:
                raise OSError(f"standard output can't be written: {error.strerror}; name a file with -o") from error
        else:
            write(self.path, content)


@dataclass(frozen=True)
class RequestedRenderer:
    """The renderer that was asked for, or each explanation's own; with those of the settings that it has."""

    name: str | None
    settings: Mapping[str, str]
    """As typed."""
    method_settings: frozenset[str] = frozenset()
    """Settings that the methods have; no renderer need have them."""
    presets: Mapping[str, tuple[str, Mapping[str, Any]]] = field(default_factory=dict)
    """Further names that an explanation may ask for, each a renderer with settings that may be overridden."""

    def __call__(self, explanation: Explanation) -> NDArray[np.uint8]:
        """The pictures (N, H, W, 3), uint8."""
        return explanation.render(self.of(explanation))

    def of(self, explanation: Explanation) -> Renderer:
        """The renderer that draws this explanation, with its settings."""
        name, preset = self._choice(explanation)
        return renderers[name](**{**preset, **converted(renderers[name], self.settings)})

    def pictures(self, explanation: Explanation, at: At | None) -> Sequence[NDArray[np.uint8]]:
        """A picture for each input; with None at the original's size, except for a figure, which has its own."""
        try:
            return list(explanation.render(self.of(explanation), at or "original"))
        except FigureError:
            if at is not None:
                raise
            return list(explanation.render(self.of(explanation)))

    def pages(
        self, explanations: Mapping[str, Explanation], files: Sequence[str], at: At | None, columns: int | None = None
    ) -> list[Page]:
        """All of them in a picture, or in several if they are many; at the size that :meth:`pictures` says."""

        def drawn(size: At) -> list[Page]:
            if len(files) == 1:
                return [Page(grid(explanations, self, columns, size), slice(None))]
            return grid_pages(explanations, files, self, columns, size)

        try:
            return drawn(at or "original")
        except FigureError:
            if at is not None:
                raise
            return drawn("input")

    def checked(self, explanation: Explanation) -> NDArray[np.uint8]:
        """The pictures of the only explanation there is. Raises TypeError as :meth:`check` does."""
        self.check([explanation])
        return self(explanation)

    def check(self, explanations: Iterable[Explanation]) -> None:
        """Raises TypeError for a setting that neither the methods nor any of the renderers have."""
        used = [renderers[name] for name, _ in map(self._choice, explanations)]
        for setting in self.settings.keys() - self.method_settings:
            if not any(setting in renderer.settings for renderer in used):
                used[0].bind(**{setting: None})  # raises, and knows the nearest name

    def _choice(self, explanation: Explanation) -> tuple[str, Mapping[str, Any]]:
        preset = self.presets.get(explanation.renderer or "")
        return preset or (self.name or explanation.usual_renderer, {})


def destination(command: str, options: Mapping[str, Any], answers: int, methods: int = 1) -> Destination:
    """What ``-o`` means, for so many answers of so many methods.

    Raises OSError or ValueError for what could not be written at the end of the work.
    """
    output, show = options["output"], options["show"]
    if output is None:
        return Destination(own_folder(command, options), folder=True)
    if not output:
        raise ValueError("-o is empty; name a file or a folder")
    path = Path(output)
    if output == str(STDOUT):
        if answers != 1:
            raise ValueError(f"-o - writes one picture to standard output, and {answers} are asked for; name a folder")
        if show:
            raise ValueError("--show opens files, and -o - writes none; leave one of them out")
        return Destination(STDOUT, folder=False)
    if path.name in (*PICTURES, VALUES):
        raise ValueError(f"{path} is a suffix without a name; say -o map{path.name}")
    if path.is_dir() or output.endswith(("/", os.sep)) or not path.suffix:
        if path.exists() and not path.is_dir():
            raise NotADirectoryError(f"{path} is a file; say -o {path}.png, or name another folder")
        return Destination(path, folder=True)
    suffix = path.suffix.lower()
    if suffix not in (VALUES, *PICTURES):
        kinds = ", ".join((VALUES, *PICTURES))
        raise ValueError(f"{path} has no suffix that can be written ({kinds}); for a folder say -o {path}/")
    if suffix == VALUES and methods > 1:
        raise ValueError(f"{path} keeps the values of one method, and {methods} were asked for; run once for each")
    if suffix == VALUES and show:
        raise ValueError(f"--show opens pictures, and {path} keeps values; leave one of them out")
    check_folder(path)
    return Destination(path, folder=False)


def check_folder(path: Path) -> None:
    """Raises FileNotFoundError where the file's folder is not there."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} does not exist; make it first")


def write_together(
    place: Destination,
    batches: Mapping[str, Sequence[Explanation]],
    files: Sequence[Path],
    renderer: RequestedRenderer,
    options: Mapping[str, Any],
    reads: Sequence[Path],
    mark: str,
) -> dict[Path, Explanation]:
    """All explanations, by method and in batches, in one file: a picture, a grid of pictures, or values.

    ``files`` are the pictures; ``reads`` may not be replaced. Pictures have the ``mark``. A grid that is large becomes
    several files. Returns the files, each with the explanations of the first method in it. Raises ValueError for inputs
    of different sizes, and as :func:`~cnnviz.cli.places.settle` does for the files of a large grid.
    """
    try:
        explanations = {name: joined(parts) for name, parts in batches.items()}
    except ValueError:
        advice = "give --size, or a folder, such as -o maps/"
        raise ValueError(f"the pictures reach the model in different sizes; {advice}") from None
    first, at = next(iter(explanations.values())), options.get("at")
    renderer.check(explanations.values())
    if place.path.suffix.lower() == VALUES:
        first.save(place.path)
    elif len(first) == 1 and len(explanations) == 1:
        place.write(encoded(renderer.pictures(first, at)[0], place.path.suffix or ".png", mark))
    else:
        pages = renderer.pages(explanations, [each.name for each in files], at)
        return {path: first[items] for path, items in write_pages(place, pages, options, reads, mark).items()}
    return {place.path: first}


def write_pages(
    place: Destination,
    pages: Sequence[Page],
    options: Mapping[str, Any],
    reads: Sequence[Path],
    mark: str | None = None,
) -> dict[Path, slice]:
    """Write one page under its name, several as ``name-1.png`` and so on. Returns what pictures each file shows.

    Raises as :func:`~cnnviz.cli.places.settle` does.
    """
    suffix = place.path.suffix or ".png"
    if len(pages) == 1:
        place.write(encoded(pages[0].picture, suffix, mark))
        return {place.path: pages[0].items}
    numbered = {place.path.with_stem(f"{place.path.stem}-{number}"): page for number, page in enumerate(pages, 1)}
    there = settle(numbered, reads, options)
    for path, page in numbered.items():
        if path not in there:
            write(path, encoded(page.picture, suffix, mark))
    return {path: page.items for path, page in numbered.items()}


def open_in_viewer(paths: Sequence[Path]) -> None:
    """Open written pictures in the viewer of the desktop, the first few of many; pages in its browser."""
    for path in paths[:SHOWN]:
        if path.suffix.lower() in (".html", ".htm"):
            import webbrowser

            webbrowser.open(path.absolute().as_uri())
            continue
        with Image.open(path) as picture:
            picture.show()
    if len(paths) > SHOWN:
        print_failure(f"--show opened {SHOWN} of {len(paths)} pictures; the others are in {paths[SHOWN].parent}")
