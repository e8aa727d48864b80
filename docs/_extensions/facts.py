"""What the page of methods says of each: its picture, formula, cost, what tests hold of it, and its verdict."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from claims import CLAIMS
from families import FAMILIES, IN_WORDS
from passes import FILE, in_words

import cnnviz

DOCS = Path(__file__).parents[1]
LAYER = re.compile(r"LayerAt\([^()]*\)")
PLAIN = re.compile(r"\bcnnviz\.|<_?(?=\w+>)|(?<=\w)>(?=\()|\b_(?=\w+\()")
"""What tells parts of a formula apart, and is in the way of a reader."""
OUTER = re.compile(r"^layer_maps\(\((.*?),\), \(layer,\)\)$")
LONGEST = 130
"""Characters of a formula that is shown as it is."""


def formula(name: str) -> str:
    """The formula as code prints it, without what only names a layer; or in words, where it is a procedure."""
    if name in IN_WORDS:
        return IN_WORDS[name]
    text = LAYER.sub("layer", str(cnnviz.attributions[name].build()))
    text = PLAIN.sub("", OUTER.sub(r"\1", text))
    if "procedure" in text or len(text) > LONGEST:
        raise ValueError(f"{name}: {text} can't be read; say it in families.IN_WORDS")
    return text


@cache
def verdicts() -> dict[str, str]:
    """What docs/sanity.md says of each method, which benchmarks.sanity writes."""
    table = (DOCS / "sanity.md").read_text().partition("## Verdicts")[2].partition("By these rules")[0]
    return {name.strip(): text.strip() for name, text in re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", table, re.M)}


@cache
def left_out() -> dict[str, str]:
    """Why docs/sanity.md has no verdict on a method."""
    listed = (DOCS / "sanity.md").read_text().partition("## Left out")[2]
    return dict(reversed(re.findall(r"^- (\w+), [^:]*: (.*)$", listed, re.M)))


def of_attribution(name: str) -> Iterator[str]:
    shown = "a drawn circle and a drawn star" if name in FAMILIES["Attention"][1] else "a cat and for a cup of coffee"
    yield from _picture(f"gallery/{name}.jpg", f"What {name} gives for {shown}")
    yield from (".. container:: facts", "")
    yield from (f"   {line}" for line in _fields(name))
    yield ""


def _fields(name: str) -> Iterator[str]:
    written, backslash = formula(name), r"\\\1"  # these two have a meaning in reStructuredText
    yield f":Formula: {re.sub('([*|])', backslash, written) if name in IN_WORDS else f'``{written}``'}"
    costs = json.loads(FILE.read_text())
    yield f":Cost: {in_words(costs[name]) if name in costs else '1 pass forward for each mask'}"
    found = verdicts().get(name)
    why = left_out().get(name, "it is not measured")
    said = f"{found} (`sanity checks <sanity.html#verdicts>`__)" if found else f"none: {why}"
    yield f":Verdict: {said}"
    held = " ".join(f"{sentence} (``{test.partition('::')[2]}``)" for sentence, test in CLAIMS[name])
    yield f":Tested: {held}"
    yield f":Pictures: `gallery <gallery.html#{name}>`__"


def pictures(kind: str, name: str) -> Iterator[str]:
    """The picture of a renderer."""
    if kind == "renderer":
        for file in (f"gallery/renderer-{name}.jpg", f"gallery/{name}.jpg"):
            yield from _picture(file, f"Maps drawn by {name}")


def _picture(file: str, alternative: str) -> Iterator[str]:
    if (DOCS / file).exists():
        yield from (f".. image:: {file}", f"   :alt: {alternative}", "")
