"""The Python that makes an answer again, as text. Whatever a stranger named stands in it as a literal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cnnviz.pages.explorer.asking import Question


def python_of(question: Question, renderer: str | None, settings: Mapping[str, Any], at: str) -> str:
    """A program that writes the pictures of all methods into the folder ``answers``."""
    model = question.subject.model
    made = "".join(f", {name}={value!r}" for name, value in question.subject.arguments.items())
    lines = ["import cnnviz", "", f"model = cnnviz.load_model({model.name!r}{made})"]
    lines += _moved(question)
    methods = [repr(name) for name in question.names]
    methods += [f"cnnviz.parse_formula({text!r})" for text in question.formulas]
    arguments = ["model", repr(question.picture.name), *([] if len(methods) > 1 else [f"[{methods[0]}]"])]
    if len(methods) > 1:
        arguments.append("[\n        " + ",\n        ".join(methods) + ",\n    ]")
    arguments += [f"target={question.target}"] if question.target is not None else []
    if any(question.settings_of(name) for name in question.names):
        arguments.append(f"layer={question.layer!r}")
    arguments += ['preprocess="whole"'] if question.subject.whole else []
    arguments.append(f"seed={question.seed}")
    lines += ["answers = cnnviz.explain("]
    for argument in arguments:
        name = _class_name(question) if argument.startswith("target=") else None
        lines.append(f"    {argument}," + (f"  # {name!r}" if name else ""))
    lines += [")"]
    given = [repr(part) for part in ("answers", renderer) if part is not None]
    given += [f"at={at!r}"] if at != "input" else []
    given += [f"{name}={value!r}" for name, value in settings.items()]
    lines += [f"answers.save({', '.join(given)})", "print(answers.table())"]
    return "\n".join(lines) + "\n"


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


def _class_name(question: Question) -> str | None:
    names, target = question.subject.model.categories, question.target
    return names[target] if names is not None and target is not None and 0 <= target < len(names) else None
