"""Letters that DejaVu Sans lacks are drawn in the system's fonts; where none has them, the class's number is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.font_manager import FontEntry, fontManager
from PIL import Image, ImageDraw

from cnnviz import demo, explain, load_model
from cnnviz.__main__ import main
from cnnviz.drawing import draw_text, drawable_names, drawable_titles, fonts, lines, wrapped
from cnnviz.drawing.figure import PixelFigure
from cnnviz.explanations.explanation import Explanation

YEN, MOON, STAR = "円", "🌙", "★"  # of which DejaVu Sans has the last


def made(path: Path, family: str, letters: str) -> FontEntry:
    """A font whose letters are black squares as high and wide as the font."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 1000), (1000, 1000), (1000, 0)):
        pen.lineTo(corner)
    pen.closePath()
    names = [".notdef", *(f"u{ord(letter):x}" for letter in letters)]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(letter): f"u{ord(letter):x}" for letter in letters})
    builder.setupGlyf(dict.fromkeys(names, pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (1000, 0)))
    builder.setupHorizontalHeader(ascent=1000, descent=0)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return FontEntry(str(path), name=family, style="normal", weight=400, stretch="normal", size="scalable")


def forget() -> None:
    for found in (fonts.face_with, fonts._installed):
        found.cache_clear()


@pytest.fixture
def squares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FontEntry]:
    """The only font of the system: it has 円."""
    entry = made(tmp_path / "squares.ttf", "Squares Sans", YEN)
    own = [each for each in fontManager.ttflist if each.name == fonts.FAMILY]
    monkeypatch.setattr(fontManager, "ttflist", [*own, entry])
    forget()
    yield entry
    forget()


def drawn(text: str, anchor: str = "la", at: tuple[int, int] = (4, 4)) -> np.ndarray:
    canvas = Image.new("L", (200, 40), "white")
    draw_text(ImageDraw.Draw(canvas), at, text, letters=16, anchor=anchor)
    return np.asarray(canvas)


def box(picture: np.ndarray) -> tuple[int, int, int, int]:
    """The first and last dark column and row, of which three quarters are covered."""
    rows, columns = np.nonzero(picture < 64)
    return columns.min(), columns.max(), rows.min(), rows.max()


def test_a_letter_is_drawn_by_the_font_that_has_it_on_the_line_of_the_others(squares: FontEntry) -> None:
    assert fonts.parts(f"a{YEN} {STAR}") == [
        (fonts.usual_face(), "a"),
        (fonts.Face(squares.fname, "Squares Sans"), YEN),
        (fonts.usual_face(), f" {STAR}"),
    ]
    ascent = fonts.usual_face().sized(16).getmetrics()[0]
    left, right, top, bottom = box(drawn("  " + YEN))
    indent = round(fonts.usual_face().sized(16).getlength("  "))
    assert (left, right - left + 1) == (4 + indent, 16)
    assert (top, bottom + 1) == (4 + ascent - 16, 4 + ascent), "it stands on the line of DejaVu Sans"


@pytest.mark.parametrize("anchor", ["lm", "mm", "rm"])
def test_text_of_several_fonts_is_placed_as_asked(squares: FontEntry, anchor: str) -> None:
    wide = round(fonts.usual_face().sized(16).getlength("I")) + 16
    _, right, *_ = box(drawn("I" + YEN, anchor, (100, 20)))
    end = 100 + {"l": wide, "m": wide / 2, "r": 0}[anchor[0]]
    assert abs(right + 1 - end) <= 1
    assert lines(["I" + YEN] * 2, 1000, 16) == ["I" + YEN] * 2


def test_figures_draw_it_too(squares: FontEntry) -> None:
    figure = PixelFigure(120, 30)
    figure.text([YEN], 60, 6)
    dark = (figure.drawn().mean(-1) < 64).sum()
    assert dark >= 12 * 12, "a square of ten points"
    assert wrapped(f"{YEN} {YEN}", 20) == [YEN, YEN]


def test_marks_and_spaces_stay_with_their_letter(squares: FontEntry) -> None:
    ((face, whole),) = fonts.parts("e\u0301t\u200dé")
    assert (face, whole) == (fonts.usual_face(), "e\u0301t\u200dé")
    assert [part for _, part in fonts.parts(f"{YEN}\u200d{YEN}")] == [f"{YEN}\u200d{YEN}"]


def test_the_number_is_drawn_of_a_name_that_no_font_has(squares: FontEntry) -> None:
    with pytest.warns(fonts.FontWarning, match="no font here has all letters of '🌙' and of 1 more names"):
        assert drawable_names({3: MOON, 4: YEN, 9: f"a {MOON}"}) == {3: "class 3", 4: YEN, 9: "class 9"}
    names = (MOON, YEN, *demo.CATEGORIES[2:])
    result = explain(load_model("demo"), torch.zeros(2, 3, 96, 96), "gradient", target=[0, 1])
    named = Explanation(**{**vars(result), "categories": names})
    with pytest.warns(fonts.FontWarning, match="install a font that has them"):
        first, second = drawable_titles(named)
    assert first.startswith("class 0 ")
    assert second.startswith(f"{YEN} ")


def test_the_command_line_says_so_in_one_line(
    squares: FontEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("names.txt").write_text("\n".join([f"{MOON} {number}" for number in range(8)]), encoding="utf-8")
    for number, picture in enumerate(demo.pictures().pictures[:2]):
        Image.fromarray(picture).save(f"{number}.png")
    assert main(["explain", "0.png", "1.png", "--categories", "names.txt", "-o", "sheet.png"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"sheet.png: {MOON} 0 ")
    (line,) = said.err.splitlines()
    assert line.startswith(
        "cnnviz: no font here has all letters of '🌙 0' and of 1 more names, so that the class's number"
    )
