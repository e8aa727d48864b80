"""The Python that makes an answer again, as text. Whatever a stranger named stands in it as a literal."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from cnnviz.explanations.explanation import Explanation
from cnnviz.pages.explorer.asking import Question, Result

Drawing: TypeAlias = Callable[[Explanation], tuple[str, Mapping[str, Any], str]]
"""How an explanation is drawn: the renderer's name, its settings, and at which size."""


def python_of(question: Question, draw: Drawing) -> str:
    """A program that computes the answers of all methods that have one, and writes their pictures."""
    model, subject = question.subject.model, question.subject
    done = [result for result in [*question.results] if result.explanation is not None]
    names = [result.method for result in done if not result.is_formula]
    made = "".join(f", {name}={value!r}" for name, value in subject.arguments.items())
    lines = ["import cnnviz", "", f"model = cnnviz.load_model({model.name!r}{made})", *_moved(question)]
    lines += ["answers = cnnviz.explain(", "    model,", f"    {question.picture.name!r},", "    ["]
    for result in done:
        written = f"cnnviz.parse_formula({result.method!r})" if result.is_formula else repr(result.method)
        lines.append(f"        {written},")
    lines.append("    ],")
    if question.target is not None:
        name, target = question.class_name, str(question.target)
        target = f"cnnviz.targets.region({target})" if subject.regions else target
        lines.append(f"    target={target}," + (f"  # {name!r}" if name else ""))
    if any(question.settings_of(name) for name in names):
        lines.append(f"    layer={question.layer!r},")
    lines += ['    preprocess="whole",'] if subject.whole else []
    lines += [f"    seed={question.seed},", ")"]
    variables = [_variable(result, number) for number, result in enumerate(done, 1)]
    unpacked = f"({variables[0]},)" if len(done) == 1 else ", ".join(variables)
    lines += [f"{unpacked} = answers.values()"] if done else []
    for variable, result in zip(variables, done, strict=True):
        assert result.explanation is not None
        name, settings, at = draw(result.explanation)
        place = f", at={at!r}" if at != "input" else ""
        written = "".join(f", {setting}={value!r}" for setting, value in settings.items())
        lines.append(f"{variable}.save({f'{stem(result.method)}.png'!r}, {name!r}{place}{written})")
    lines.append("print(answers.table())")
    return "\n".join(lines) + "\n"


def _variable(result: Result, number: int) -> str:
    """A name for an answer, which is no word of Python."""
    return f"formula_{number}" if result.is_formula else re.sub(r"\W", "_", result.method) + "_map"


def stem(method: str) -> str:
    """A method or a formula as the name of a file."""
    kept = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "_-") else "-" for letter in method)
    return "-".join(filter(None, kept.split("-")))[:60] or "answer"


def _moved(question: Question) -> list[str]:
    """Lines that put the model where it computed."""
    weights = next(iter(question.subject.model.module.parameters()), None)
    if weights is None:
        return []
    device, dtype = str(weights.device), str(weights.dtype)
    places = [repr(device)] if device != "cpu" else []
    if dtype != "torch.float32":
        return ["import torch  # for the dtype", f"model.module.to({', '.join([*places, dtype])})"]
    return [f"model.module.to({places[0]})"] if places else []
