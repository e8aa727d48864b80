"""The methods that a command line names: names of the registry, and formulas, each as it is called from then on."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence

_FORMULA = re.compile(r"[()\[\]{}*/'\"]|\w\s*\+\s*\w|\s[+-]|^\s*-")
"""What no method's name has. A + behind a name is not meant: peers have GradCAM++."""
_LONGEST = 80
"""Bytes of a formula in a file's name."""
_WORDS = {"**": "power", "*": "times", "/": "by", "+": "plus", "-": "minus"}


def is_formula(text: str) -> bool:
    """True for a text with a bracket or a sign: it is a formula, and else a method's name."""
    return _FORMULA.search(text) is not None


def method_names(texts: Sequence[str] | None, default: str) -> list[str]:
    """The names and formulas in ``a,b`` and in repeated options, each once; a formula as it prints.

    Raises FormulaError for a text that is no formula.
    """
    parts = [part.strip() for text in texts or [default] for part in _separated(text)]
    return list(dict.fromkeys(method_name(part) for part in parts))


def method_name(text: str) -> str:
    """The same of one text that was typed."""
    if not is_formula(text):
        return text
    from cnnviz.formulas.parsing import parse_formula

    return repr(parse_formula(text))


def file_part(name: str) -> str:
    """A method's name as a part of a file's name: a formula in words, ``guided_backprop-times-upsample-grad_cam``."""
    if not is_formula(name):
        return name
    words = re.sub(r"\*\*|[*/+-]", lambda sign: f" {_WORDS[sign[0]]} ", name.replace("()", ""))
    part = re.sub(r"[^\w.=]+", "-", words.replace("'", "")).strip("-.")
    if len(os.fsencode(part)) <= _LONGEST:
        return part
    digits = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{os.fsencode(part)[: _LONGEST - 9].decode(errors='ignore')}-{digits}"


def _separated(text: str) -> Iterator[str]:
    """The parts between commas that stand in no brackets and no quotation marks."""
    part, depth, quotation = "", 0, ""
    for letter in text:
        if quotation:
            quotation = "" if letter == quotation and not part.endswith("\\") else quotation
        elif letter in "'\"":
            quotation = letter
        elif letter in "([":
            depth += 1
        elif letter in ")]":
            depth -= 1
        elif letter == "," and depth <= 0:
            yield part
            part = ""
            continue
        part += letter
    yield part
