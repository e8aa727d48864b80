"""Stored explanations as pictures: in a folder, one for each item, or together in one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnviz.explanations.explanation import Explanation
from cnnviz.explanations.explanation_set import Explanations
from cnnviz.explanations.joining import joined
from cnnviz.images.originals import At, check_at
from cnnviz.images.writing import encoded, picture_suffix, write

if TYPE_CHECKING:
    from cnnviz.datasets.stored.batch_view import Batch

LONGEST = 200
"""Bytes of a part of a name; most file systems take 255."""
_HOSTILE = re.compile(r'[\x00-\x1f\x7f%\\:*?"<>|]')


def export(
    batch: Batch,
    folder: Path,
    renderer: Any,
    at: At,
    suffix: str,
    overwrite: bool,
    settings: Mapping[str, Any],
) -> int:
    """As :meth:`cnnviz.datasets.Batch.export`."""
    check_at(at)
    suffix = picture_suffix(f"picture{suffix}")
    methods, written = batch.methods, 0
    for item in batch.answered:
        every: Mapping[str, Explanation] = item if isinstance(item, Mapping) else {methods[0]: item}
        for method, explanation in every.items():
            place = file_name(explanation.item_id) + suffix  # type: ignore[attr-defined]  # a stored one
            path = folder / (f"{file_name(method.replace('/', '%2F'))}/{place}" if len(methods) > 1 else place)
            if path.exists() and not overwrite:
                raise FileExistsError(
                    f"{path} is there already, and was not replaced; choose another folder, or say overwrite=True "
                    "(--overwrite)"
                )
            picture = explanation.render(renderer, at, **settings)[0]
            _write_inside(folder, path, encoded(np.asarray(picture), suffix))
            written += 1
    return written


def _write_inside(folder: Path, path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:  # the items "a" and "a.png/b"
        raise FileExistsError(
            f"{path.parent} is no folder, and an item needs it to be one; choose another folder"
        ) from error
    if not path.parent.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{path.parent} leads out of {folder} by a link; choose another folder")
    write(path, content)


def file_name(item_id: str) -> str:
    """The id as a path below a folder. No two ids have one name, and none leads out of the folder."""
    return "/".join(_part(part) for part in item_id.split("/"))


def _part(part: str) -> str:
    if not part.strip("."):  # nothing, ".", ".."
        return "%2E" * len(part) or "%_"
    name = _HOSTILE.sub(lambda found: f"%{ord(found[0]):02X}", part)
    content = name.encode("utf-8", "surrogatepass")
    if len(content) <= LONGEST:
        return name
    start = content[: LONGEST - 40].decode("utf-8", "ignore")
    return f"{start}%~{hashlib.sha256(content).hexdigest()[:32]}"


def together(batch: Batch, methods: Sequence[str]) -> Explanations[Explanation]:
    """The explanations of all items by method, each as one batch. Raises ValueError for inputs of different sizes."""
    return Explanations({method: joined(list(batch[method])) for method in methods})
