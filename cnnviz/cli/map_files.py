"""The files that ``--format`` names: a picture or the values of each map, or the values of all maps of a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnviz.cli.outputs import VALUES, RequestedRenderer
from cnnviz.cli.places import file_names
from cnnviz.explanations.explanation import Explanation
from cnnviz.images.originals import At
from cnnviz.images.writing import encoded, write

TOGETHER, ALL_MAPS = ".npz", "maps"
"""The suffix of files that hold all maps of a picture, and what stands in their names instead of a method."""


def map_names(
    folder: Path, pictures: Sequence[Path], names: Sequence[str], below: Mapping[Path, Path], suffix: str
) -> dict[tuple[Path, str], Path]:
    """The file of each picture and explanation; a .npz has all explanations of its picture."""
    if suffix != TOGETHER:
        return file_names(folder, pictures, names, below, suffix)
    files = file_names(folder, pictures, [ALL_MAPS], below, suffix)
    return {(picture, name): files[picture, ALL_MAPS] for picture in pictures for name in names}


def by_file(
    names: Mapping[tuple[Path, str], Path], picture: Path, explanations: Mapping[str, Explanation]
) -> dict[Path, dict[str, Explanation]]:
    """The explanations of one picture by the file that they go to."""
    files: dict[Path, dict[str, Explanation]] = {}
    for name, explanation in explanations.items():
        files.setdefault(names[picture, name], {})[name] = explanation
    return files


def write_maps(
    path: Path, explanations: Mapping[str, Explanation], renderer: RequestedRenderer, at: At | None, mark: str
) -> None:
    """Write the explanations of one picture that go to this file, as its suffix says; pictures have the ``mark``.

    A .npy has the values (C, *spatial). A .npz has those of all: for the name ``grad_cam`` there are ``grad_cam``
    (C, *spatial), ``grad_cam.score``, and of a class ``grad_cam.class_index`` and ``grad_cam.class_name``.
    """
    stream = io.BytesIO()
    first = next(iter(explanations.values()))
    if path.suffix == VALUES:
        path.parent.mkdir(parents=True, exist_ok=True)
        first.save(path)
        return
    if path.suffix == TOGETHER:
        np.savez_compressed(stream, **_arrays(explanations))
    elif path.suffix == ".npy":
        np.save(stream, _values(first))
    else:
        stream.write(encoded(renderer.pictures(first, at)[0], path.suffix, mark))
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, stream.getvalue())


def _arrays(explanations: Mapping[str, Explanation]) -> dict[str, Any]:
    arrays: dict[str, Any] = {}
    for name, each in explanations.items():
        arrays |= {name: _values(each), f"{name}.score": np.float64(each.score[0])}
        if each.target is not None:
            index = int(each.target[0])
            arrays |= {f"{name}.class_index": np.int64(index), f"{name}.class_name": np.str_(each.name_of(index))}
    return arrays


def _values(explanation: Explanation) -> NDArray[Any]:
    values = explanation.values[0].detach().cpu()
    kept: NDArray[Any] = (values if values.dtype.itemsize >= 4 else values.float()).numpy()
    return kept
