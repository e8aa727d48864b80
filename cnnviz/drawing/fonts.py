"""Fonts for letters of any script: DejaVu Sans, which comes with matplotlib, and for what it lacks those of the system.

Nothing is searched while DejaVu Sans has all letters.
"""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

    from cnnviz.explanations.explanation import Explanation

FAMILY = "DejaVu Sans"


class FontWarning(UserWarning):
    """No font that is installed has all letters of a text."""


@dataclass(frozen=True)
class Face:
    """A font in a file."""

    path: str
    family: str

    def sized(self, letters: int) -> FreeTypeFont:
        """The font at that size in pixels."""
        return _sized(self.path, letters)

    def has(self, letter: str) -> bool:
        """Whether there is a picture of the letter."""
        return bool(_glyphs(self.path).get_char_index(ord(letter)))


@cache
def usual_face() -> Face:
    """DejaVu Sans."""
    import matplotlib

    # Pillow's own font has few letters beyond ASCII
    return Face(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), FAMILY)


@cache
def face_with(letter: str) -> Face | None:
    """The first font that has the letter: DejaVu Sans, then those of the system, upright ones without serifs first."""
    return next((face for face in (usual_face(), *_installed()) if face.has(letter)), None)


def parts(text: str) -> list[tuple[Face, str]]:
    """The text cut into pieces, each with the font that draws it; DejaVu Sans draws a box for what no font has."""
    if text.isascii():
        return [(usual_face(), text)]
    faces: list[Face] = []
    for letter in text:
        follows = letter.isspace() or unicodedata.category(letter) in ("Mn", "Me", "Cf")
        stays = faces and follows and (unicodedata.category(letter) == "Cf" or faces[-1].has(letter))
        faces.append(faces[-1] if stays else face_with(letter) or usual_face())
    pieces = groupby(zip(faces, text, strict=True), key=lambda pair: pair[0])
    return [(face, "".join(letter for _, letter in piece)) for face, piece in pieces]


def families(text: str) -> list[str]:
    """The families of fonts that matplotlib needs for the text, in the order in which it is to ask them."""
    return list(dict.fromkeys([FAMILY, *(face.family for face, _ in parts(text))]))


def can_draw(text: str) -> bool:
    """Whether there is a font for every letter that is seen."""
    unseen = ("Cf", "Cc", "Zs", "Mn")  # marks that no font has leave the letter below them readable
    return text.isascii() or all(unicodedata.category(letter) in unseen or face_with(letter) for letter in text)


def drawable_names(names: Mapping[int, str]) -> dict[int, str]:
    """The names of classes, by number; of one that can't be drawn its number, such as ``class 7``.

    Warns of the first of these with a :class:`FontWarning`.
    """
    drawn = {number: name if can_draw(name) else f"class {number}" for number, name in names.items()}
    changed = [name for number, name in names.items() if drawn[number] != name]
    if changed:
        more = f" and of {len(changed) - 1} more names" if len(changed) > 1 else ""
        warnings.warn(
            f"no font here has all letters of {changed[0]!r}{more}, so that the class's number is drawn; "
            "install a font that has them, such as Noto Sans",
            FontWarning,
            stacklevel=2,
        )
    return drawn


def drawable_titles(explanation: Explanation) -> list[str]:
    """What :meth:`cnnviz.Explanation.titles` gives, with the number of each class whose name can't be drawn."""
    titles = explanation.titles()
    if all(map(can_draw, titles)) or explanation.categories is None or explanation.target is None:
        return titles
    shown = {max(0, number) for number in explanation.target.tolist()}  # -1: what speaks against class 0
    names = dict(enumerate(explanation.categories))
    names |= drawable_names({number: names[number] for number in sorted(shown & names.keys())})
    return replace(explanation, categories=tuple(names.values())).titles()


@cache
def _sized(path: str, letters: int) -> FreeTypeFont:
    from PIL import ImageFont

    return ImageFont.truetype(path, letters)


@cache
def _glyphs(path: str):  # type: ignore[no-untyped-def]  # matplotlib's FT2Font
    from matplotlib.ft2font import FT2Font

    return FT2Font(path)


@cache
def _installed() -> list[Face]:
    """The fonts of the system that can be drawn at any size, the plainest first."""
    import matplotlib
    from matplotlib.font_manager import fontManager

    own = Path(
        matplotlib.get_data_path()
    )  # formulas are set in these, and their letters are not where Unicode has them
    entries = [entry for entry in fontManager.ttflist if own not in Path(entry.fname).parents]

    def fanciness(entry) -> tuple[bool, bool, bool, str]:  # type: ignore[no-untyped-def]  # matplotlib's FontEntry
        return (
            entry.style != "normal",
            entry.weight not in (400, "normal", "regular"),
            "Sans" not in entry.name,
            entry.fname,
        )

    first = [entry for entry in sorted(entries, key=fanciness) if not getattr(entry, "index", 0)]
    return [Face(entry.fname, entry.name) for entry in first if _is_scalable(entry.fname)]


def _is_scalable(path: str) -> bool:
    try:
        return bool(_glyphs(path).scalable)
    except (OSError, RuntimeError):  # gone since matplotlib listed it, or broken
        return False
