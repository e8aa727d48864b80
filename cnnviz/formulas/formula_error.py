"""What is wrong with a formula's text, and where."""

from __future__ import annotations

from typing import Any

_AROUND = 40
"""Characters of the text that are shown before and after the place."""


class FormulaError(ValueError):
    """A text is no formula. The message is one line: what is wrong, the way out, and the text with the place marked."""

    def __init__(self, reason: str, text: str, start: int, stop: int, hint: str | None = None):
        self.reason = reason
        """What is wrong and the way out, without the place."""
        self.text = text
        self.start = start
        """The first character of ``text`` that is meant, from 0."""
        self.stop = stop
        """The character behind the last one that is meant; at the text's end both are its length."""
        self.hint = hint
        """What may have been meant in this place, such as ``grad_cam``; None where nothing is near."""
        super().__init__(f"{reason}; here, between >>> and <<<: {_marked(text, start, stop)}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason, self.text, self.start, self.stop, self.hint)


def shown(text: str) -> str:
    """A part of the text in a message: short, and without characters that move the cursor."""
    short = text if len(text) <= _AROUND else f"{text[: _AROUND - 3]}..."
    return "".join(letter if letter.isprintable() else "?" for letter in short)


def _marked(text: str, start: int, stop: int) -> str:
    before, place, after = text[:start], text[start:stop], text[stop:]
    before = f"...{before[-_AROUND:]}" if len(before) > _AROUND + 3 else before
    place = f"{place[:_AROUND]}..." if len(place) > _AROUND + 3 else place
    after = f"{after[:_AROUND]}..." if len(after) > _AROUND + 3 else after
    line = " ".join(f"{before}>>>{place}<<<{after}".split())
    return "".join(letter if letter.isprintable() else "?" for letter in line)
