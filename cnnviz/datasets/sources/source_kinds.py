"""What a batch run can be over: from what a user names to a source of items."""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.utils.data import IterableDataset

from cnnviz.datasets.items import Source
from cnnviz.datasets.sources.annotated import AnnotatedSource, Labels, annotated
from cnnviz.datasets.sources.dataset_source import DatasetSource
from cnnviz.datasets.sources.file_source import (
    FileSource,
    FolderListing,
    PathListing,
    TableListing,
    folder_source,
    path_source,
    table_source,
)
from cnnviz.datasets.sources.tables import LISTS, TABLES
from cnnviz.datasets.sources.tar_source import TarSource, tar_source
from cnnviz.images.finding import READ
from cnnviz.images.places import file_and_place, is_url, not_there

if TYPE_CHECKING:
    from torch.utils.data import Dataset

    Given = Source | str | Path | Sequence[str | Path] | Dataset[Any]

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"([0-9]+)\.\.([0-9]+)")
_MOST = 1_000_000  # names of a pattern
_TARS = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")
_KINDS = (
    "give a folder, a list of paths (.txt), a table (.csv, .tsv, .parquet), tars, a list of files, or a data set with "
    "__len__ and __getitem__"
)


def source_of(
    source: Given,
    *,
    labels: Labels | Path = "auto",
    masks: str | Path | None = None,
    recursive: bool = True,
    root: str | Path | None = None,
) -> Source:
    """What a batch run is over, from what names it.

    Args:
        source: a folder; a list of files, or a text file of them (.txt); a table with the columns path, label and mask
            (.csv, .tsv, .parquet); WebDataset tars, several by a pattern such as ``"train-{0000..0146}.tar"``; a
            map-style Dataset of pictures, or of pictures and labels. A :class:`Source` is taken as it is.
        labels: where the true classes come from. "auto" is the source itself: the column, the tar, the data set, or
            folders that are named as classes. "folder" is the name of each picture's first folder. A table has the
            columns path and label. None leaves labels out.
        masks: a folder of masks of the annotated evidence, named as their pictures.
        recursive: search the folders in a folder too.
        root: the folder that the paths of a list or table are relative to; else that is the table's own.

    Raises FileNotFoundError for what is not there, ValueError or TypeError for what is no source.
    """
    made = _source(source, recursive, root, labels == "auto")
    if made is source and labels == "auto" and masks is None:
        return made
    return annotated(made, labels, masks)


def source_from_described(described: Mapping[str, Any]) -> Source | None:
    """The source again that told this of itself, to open its items; None where that can't be, as for a data set.

    Nothing is looked up, so what is not there any more is told when an item is opened.
    """
    kind, root = described.get("kind"), described.get("root")
    if not isinstance(root, str):
        return None
    made: FileSource | TarSource
    try:
        if kind == "folder":
            made = FileSource(root, FolderListing(bool(described["recursive"])))
        elif kind == "paths":
            made = FileSource(root, PathListing(()))
        elif kind == "table":
            listing = TableListing(described["table"], described["folder"], described["label_kind"])
            made = FileSource(root, listing)
        elif kind == "tars":
            made = TarSource(root, tuple(described["tars"]))
        else:
            return None
    except (KeyError, TypeError):
        return None
    if "labels" not in described:
        return made
    return AnnotatedSource(made, described["labels"], described.get("masks"))


def _source(source: Any, recursive: bool, root: str | Path | None, labelled: bool) -> Source:
    if isinstance(source, str | Path):
        return _named(source, recursive, root)
    listed = isinstance(source, list | tuple)
    if listed and all(isinstance(each, str | Path) for each in source):
        if source and all(str(each).lower().endswith(_TARS) for each in source):
            return tar_source(source)
        if any(str(each).lower().endswith(_TARS) for each in source):
            raise ValueError("tars are named beside other files; a run is over either, so name one kind")
        return path_source(source, root)
    if root is not None:
        raise ValueError("root is the folder that paths are relative to, and here are none; leave it out")
    if isinstance(source, Source):
        return source
    if listed and any(isinstance(each, str | Path) for each in source):
        raise TypeError("a list is of paths or of pictures, and this one is of both; give one kind")
    return _of_data_set(source, labelled)


def _of_data_set(source: Any, labelled: bool) -> DatasetSource:
    kind = type(source).__name__
    if hasattr(source, "dataset") and hasattr(source, "batch_size"):
        raise TypeError(f"a {kind} has batches, and a run plans its own; give its data set: loader.dataset")
    if isinstance(source, IterableDataset) or (not hasattr(source, "__getitem__") and hasattr(source, "__iter__")):
        raise TypeError(
            f"a {kind} has no numbered items, and without these no run goes on where it stopped; give a Dataset with "
            "__len__ and __getitem__, a list of files, or tars"
        )
    if not hasattr(source, "__getitem__") or isinstance(source, Mapping | bytes) or hasattr(source, "iloc"):
        raise TypeError(f"a {kind} is nothing that a batch run can be over; {_KINDS}")
    try:
        len(source)
    except (TypeError, NotImplementedError):
        raise TypeError(f"a {kind} has no length, and a run plans all items first; give it a __len__") from None
    return DatasetSource(source, labelled)


def _named(name: str | Path, recursive: bool, root: str | Path | None) -> Source:
    if is_url(name):
        raise not_there(name)
    if not str(name):
        raise ValueError("the source's name is empty; name a folder (of a shell's variable that is not set?)")
    path = Path(name)
    if path.is_dir():
        if root is not None:
            raise ValueError(f"root is the folder that the paths of a list are relative to, and '{name}' is a folder")
        return folder_source(path, recursive)
    if not file_and_place(path)[0].exists():
        return _source(_expanded(str(name)), recursive, root, labelled=True)
    suffix = path.suffix.lower()
    if path.name.lower().endswith(_TARS):
        return tar_source([path])
    if suffix in (*TABLES, *LISTS):
        return table_source(path, root)
    if file_and_place(path)[0].suffix.lower() in READ:
        return path_source([path], root)
    raise ValueError(f"'{name}' is nothing that a batch run can be over; {_KINDS}")


def _expanded(pattern: str) -> list[str]:
    """The files of a pattern with braces, in their order, or with ``*``, sorted."""
    names = [pattern]
    while any(map(_BRACES.search, names)):
        names = list(itertools.islice(dict.fromkeys(itertools.chain(*map(_without_brace, names))), _MOST + 1))
        if len(names) > _MOST:
            raise ValueError(f"'{pattern}' stands for more than {_MOST:,} files; name fewer at once")
    if not any(map(glob.has_magic, names)):
        if names == [pattern]:
            raise not_there(pattern, "file or folder")
        return names
    found = [file for name in names for file in (sorted(glob.glob(name)) if glob.has_magic(name) else [name])]
    if not found:
        raise FileNotFoundError(f"no file is named like '{pattern}' in {os.getcwd()}")
    return found


def _without_brace(name: str) -> list[str]:
    """The name with each of the choices in place of its first brace."""
    match = _BRACES.search(name)
    if match is None:
        return [name]
    inner, ends = match[1], _RANGE.fullmatch(match[1])
    choices = inner.split(",")
    if ends is not None:
        first, last = int(ends[1]), int(ends[2])
        width = max(map(len, ends.groups())) if "0" in (ends[1][0], ends[2][0]) else 0
        numbers = range(first, last + 1) if first <= last else range(first, last - 1, -1)
        choices = [f"{number:0{width}d}" for number in itertools.islice(numbers, _MOST + 1)]
    return [name[: match.start()] + choice + name[match.end() :] for choice in choices]
