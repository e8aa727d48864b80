"""What a written answer is of: digits by which it is told from answers to other questions."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnviz.images.writing import source_of

if TYPE_CHECKING:
    from cnnviz.cli.batch_explain import Explainer
    from cnnviz.cli.outputs import RequestedRenderer

ASKED = (
    *("model", "weights", "num_classes", "key", "prefix", "mean", "std", "size", "preprocess", "categories"),
    *("dtype", "precision", "seed", "at", "before_softmax", "before_sigmoid"),
)
"""The options that an answer depends on, beside the method, the target and the renderer."""


def answer_mark(
    explainer: Explainer,
    answers: Sequence[tuple[Path, str]],
    renderer: RequestedRenderer,
    options: Mapping[str, Any],
) -> str:
    """The mark of a file with these answers, each of a picture and the name of an explanation.

    It is made of the pictures' contents, and behind a dot of the questions.
    """
    sources = [source_of(picture) for picture in dict.fromkeys(picture for picture, _ in answers)]
    questions = [_question(explainer, name, picture, renderer, options) for picture, name in answers]
    source = sources[0] if len(sources) == 1 else _digits("".join(sources), 16)
    return f"{source}.{questions[0] if len(questions) == 1 else _digits(''.join(questions), 8)}"


def _question(
    explainer: Explainer, name: str, picture: Path, renderer: RequestedRenderer, options: Mapping[str, Any]
) -> str:
    """Eight digits of what the explanation of this name was asked: method, target, network, renderer.

    Other methods of the same command change nothing, so that a method can be added to answers that are there.
    """
    target = explainer.target if explainer.targets is None else explainer.targets.get(picture)
    drawn_with = {key: text for key, text in renderer.settings.items() if key not in renderer.method_settings}
    asked = {option: str(options[option]) for option in ASKED if options.get(option) is not None}
    parts = (explainer.attributions[explainer.method_of(name)], target, explainer.all_of, renderer.name)
    text = repr((*parts, sorted(drawn_with.items()), sorted(asked.items())))
    return _digits(re.sub(r" at 0x[0-9a-f]+", "", text), 8)


def _digits(text: str, count: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:count]
