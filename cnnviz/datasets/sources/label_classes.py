"""From labels as they were read to numbers of the network's classes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cnnviz.datasets.items import Item, Source
from cnnviz.run.targets import classes_named
from cnnviz.tasks.labels import class_number

Label = int | str
Firsts = Mapping[Label, tuple[str, int]]
"""The first item of each label, and how many items have it."""
_FIRST = 3  # of what is listed in a text


@dataclass(frozen=True)
class LabelClasses:
    """The class of each label that the items of a source have."""

    numbers: Mapping[Label, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """What is told of it, such as that names of folders are taken in their order."""

    def of(self, item: Item) -> int | None:
        """The number of the item's true class; None where that is not known."""
        return None if item.label is None else self.numbers.get(item.label)


def class_of_labels(
    source: Source, items: Iterable[Item], categories: Sequence[str] | None = None, num_classes: int | None = None
) -> LabelClasses:
    """The classes of the labels of a source's items, by number, by name, or by any one word group of a name.

    Folders may write spaces as underscores. Names of folders that nobody asked for are labels if all of them are names
    of classes. If they were asked for (``labels="folder"``) and are no such names, but as many as there are classes,
    they are numbered in their order, as torchvision's ``ImageFolder`` does, which is told.

    Args:
        source: where the items come from; it tells what kind of labels they have.
        items: all of them.
        categories: the names of the network's classes, in the order of its outputs, where they are known.
        num_classes: how many there are, where that is known.

    Raises LookupError for labels that fit no class, with the first of them and its item.
    """
    firsts: dict[Label, tuple[str, int]] = {}
    without = every = 0
    for item in items:
        every += 1
        if item.label is None:
            without += 1
        else:
            first, so_far = firsts.get(item.label, (item.id, 0))
            firsts[item.label] = (first, so_far + 1)
    kind = getattr(source, "label_kind", "given")
    if not firsts or kind is None:
        return LabelClasses()
    names = None if categories is None else tuple(categories)
    count = len(names) if names is not None else num_classes
    own: tuple[str, ...] | None = getattr(source, "classes", None)
    if kind == "guessed":
        found = _guessed(list(firsts), names)
    elif own is not None and all(isinstance(label, int) for label in firsts):
        found = _of_data_set(firsts, own, names, count)
    elif kind == "folder":
        found = _of_folders(firsts, names, count)
    else:
        found = _given(firsts, names, count)
    if found.numbers and without:
        return replace(found, notes=(*found.notes, f"{without} of {every} items have no label"))
    return found


def _guessed(labels: Sequence[Label], names: tuple[str, ...] | None) -> LabelClasses:
    found: dict[Label, int] = {}
    missing: list[Label] = []
    for label in labels:
        named = _named(str(label), names)
        if named is None:
            missing.append(label)
            continue
        found[label] = named
    if found and missing:
        note = (
            f"{len(found)} of {len(labels)} folders or texts are named as classes, and '{missing[0]}' is not, so none "
            "is taken for a label; labels='folder', or --labels folder, asks for them"
        )
        return LabelClasses({}, (note,))
    return LabelClasses({} if missing else found)


def _of_data_set(firsts: Firsts, own: Sequence[str], names: tuple[str, ...] | None, count: int | None) -> LabelClasses:
    """The classes of numbers that a data set with named classes counts by itself."""
    by_name = {number: _named(name, names) for number, name in enumerate(own)}
    outside = next((label for label in firsts if label not in by_name), None)
    if outside is not None:
        raise LookupError(
            f"label {outside} of '{firsts[outside][0]}' is no class of the data set, which has {len(own)}"
        )
    fitting = {label: number for label in firsts if (number := by_name[int(label)]) is not None}
    same = count is None or len(own) == count
    if len(fitting) == len(firsts) and (not same or None not in by_name.values()):
        return LabelClasses(fitting)
    if same and all(found in (None, number) for number, found in by_name.items()):
        return LabelClasses({label: int(label) for label in firsts})
    label = next((label for label in firsts if label not in fitting), next(iter(firsts)))
    raise LookupError(
        f"label {label} of '{firsts[label][0]}' is {own[int(label)]!r} in the data set, whose {len(own)} classes are "
        f"not the {count} of the network; give labels as a table, or None"
    )


def _of_folders(firsts: Firsts, names: tuple[str, ...] | None, count: int | None) -> LabelClasses:
    """The classes of folders by their names or numbers; or by their order, if none is named so."""
    order = sorted(map(str, firsts))
    listed = ", ".join(order[:_FIRST])
    if len(order) != count:
        return _given(firsts, names, count)
    if not any(_named(label, names) is not None or label.isdecimal() for label in order):
        note = f"no folder is named as a class, and they are as many: numbered from 0 in their order ({listed}, ...)"
        return LabelClasses({label: number for number, label in enumerate(order)}, (note,))
    found = _given(firsts, names, count)
    if all(map(str.isdecimal, order)) and [found.numbers[label] for label in order] != list(range(len(order))):
        note = (
            "folders are classes by their numbers; torchvision's ImageFolder numbers them in the order of their names "
            f"({listed}, ...): give a table of labels, if the network was trained so"
        )
        return replace(found, notes=(note,))
    return found


def _given(firsts: Firsts, names: tuple[str, ...] | None, count: int | None) -> LabelClasses:
    """The classes of labels that are all meant to be some. Raises LookupError for those that are not."""
    found: dict[Label, int] = {}
    wrong: dict[Label, str] = {}
    for label, (item, _) in firsts.items():
        try:
            found[label] = _number(label, f"label of '{item}'", names, count)
        except LookupError as error:
            wrong[label] = str(error)
    if wrong:
        items = sum(firsts[label][1] for label in wrong)
        every = sum(number for _, number in firsts.values())
        others = f"{len(wrong)} labels fit no class, those of" if len(wrong) > 1 else "it is the label of"
        raise LookupError(f"{next(iter(wrong.values()))}; {others} {items} of {every} items")
    return LabelClasses(found)


def _number(label: Label, where: str, names: tuple[str, ...] | None, count: int | None) -> int:
    if isinstance(label, str):
        # whole numbers beside empty cells, as other programs write them
        plain = re.sub(r"^([0-9]+)\.0+$", r"\1", label) if _named(label, names) is None else label
        label = class_number(plain, names, where)
    if label < 0 or (count is not None and label >= count):
        known = "" if count is None else f"; there are {count}"
        raise LookupError(f"{where}: there is no class {label}{known}, numbered from 0")
    return label


def _named(label: str, names: tuple[str, ...] | None) -> int | None:
    """The only class of that name."""
    for spelled in (label, label.replace("_", " ")):
        found = classes_named(spelled, names or ())
        if len(found) == 1:
            return found[0]
    return None
