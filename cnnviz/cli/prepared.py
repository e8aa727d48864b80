"""What commands do before their work: tell arguments and settings apart, find files, load the network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import typer
from torch import Tensor

from cnnviz.cli import value_parsing
from cnnviz.cli.batch_explain import Explainer
from cnnviz.cli.errors import print_note
from cnnviz.cli.method_options import formula, separated
from cnnviz.cli.options import DTYPES
from cnnviz.cli.outputs import RequestedRenderer
from cnnviz.cli.picture_files import is_file
from cnnviz.cli.question import Question
from cnnviz.cli.target_table import read_targets
from cnnviz.cli.targets import label_of, read_target, separate_targets
from cnnviz.cli.verbose import Watch
from cnnviz.formulas.expr import Expr
from cnnviz.images.reading import read_input
from cnnviz.models.loading import LoadedModel, load_model
from cnnviz.registry.registry import Method, PluginError, RendererMethod, renderers
from cnnviz.run.resolve_target import several, top

FILE_OPTIONS = ("model", "weights", "categories")
PASSED_ON = ("seed", "memory", "before_softmax", "before_sigmoid", "precision", "fold", "compile")
"""Those which :func:`cnnviz.explain` takes under the same names."""


@dataclass(frozen=True)
class PreparedCommand:
    """The words of a command line told apart. The network loads when it is first asked for."""

    arguments: list[str]
    """What is no option: paths, mostly."""
    settings: Mapping[str, str]
    """Options that are settings of the methods or renderers, as typed."""
    methods: Sequence[Method[Any]]
    options: Mapping[str, Any]
    """The options that commands share."""

    @cached_property
    def model(self) -> LoadedModel:
        return loaded(self.options)

    @property
    def reads(self) -> list[Path]:
        """The files that the command names to be read, beside pictures: weights, a start, a baseline, ..."""
        named = [*self.arguments, *self.settings.values(), *(self.options.get(name) for name in FILE_OPTIONS)]
        return [Path(name) for name in named if name and is_file(name)]

    def read(self, path: Path) -> Tensor:
        """The picture as an input (C, *spatial) of the network."""
        return read_input(path, self.model.preprocessing)

    def attributions(self, names: Iterable[str]) -> dict[str, Expr]:
        """The methods of these names with their settings."""
        return {name: formula(name, self.settings, self.read) for name in names}

    @property
    def explain_options(self) -> dict[str, Any]:
        """Those of the options that ``explain`` takes too."""
        options = {name: self.options[name] for name in PASSED_ON if name in self.options}
        return options | {"memory": value_parsing.byte_count(options["memory"])}

    def explainer(self, attributions: Mapping[str, Expr], target: str | None) -> Explainer:
        """Explains batches of inputs by these methods, as the options say."""
        options = self.explain_options  # first, so that a wrong one is reported before the network loads
        watched = self.options.get("verbose")
        as_it_is = not (self.options.get("fold") or self.options.get("compile"))
        watch = Watch(self.model, counting=as_it_is) if watched else None
        return Explainer(self.model, attributions, read_target(target), options, watch=watch)

    def asking(self, explainer: Explainer, question: Question, pictures: Sequence[Path]) -> Explainer:
        """The explainer with the targets of the question."""
        categories = self.model.categories
        if question.table is not None:
            return replace(explainer, targets=read_targets(question.table, pictures, categories))
        if question.top is not None:
            labels = tuple(str(rank) for rank in range(1, question.top + 1))
            return replace(explainer, all_of=top(question.top), labels=labels)
        texts = separate_targets(question.targets, categories)
        if len(texts) < 2:
            return replace(explainer, target=read_target(next(iter(texts), None)))
        return replace(explainer, all_of=several(*map(read_target, texts)), labels=tuple(map(label_of, texts)))

    def renderer(self, name: str | None) -> RequestedRenderer:
        """The renderer of that name, or each explanation's own, with its settings."""
        return RequestedRenderer(
            name, self.settings, frozenset(setting for method in self.methods for setting in method.settings)
        )


def prepared(
    context: typer.Context,
    words: Sequence[str],
    methods: Sequence[Method[Any]],
    options: Mapping[str, Any],
    offered: Sequence[RendererMethod] = (),
) -> PreparedCommand:
    """Tell arguments and settings apart; ``offered`` are the renderers that may draw.

    Raises TypeError for an option that nobody has, ValueError for a setting without a value.
    """
    declared = [name for parameter in context.command.params for name in parameter.opts]
    arguments, settings = separated(words, methods, offered, declared)
    return PreparedCommand(arguments, settings, methods, options)


def with_settings(words: Sequence[str], **settings: str | None) -> list[str]:
    """The words of a command line, and behind them the settings that the command declares itself."""
    return [*words, *(part for name, text in settings.items() if text is not None for part in (f"--{name}", text))]


def offered_renderers(name: str | None) -> list[RendererMethod]:
    """The renderer of that name; without a name all that load, since only the explanation says which one draws it."""
    if name is not None:
        return [renderers[name]]
    loadable = []
    for offered in renderers:
        try:
            loadable.append(renderers[offered])
        except PluginError:
            continue  # cnnviz doctor reports it; nobody asked for this one
    return loadable


def loaded(options: Mapping[str, Any]) -> LoadedModel:
    """The network that the model options name. Raises ValueError for a device or dtype that is not there."""
    model = load_model(
        options["model"],
        weights=options["weights"],
        trust_model=options["trust_model"],
        mean=value_parsing.numbers(options["mean"], "--mean"),
        std=value_parsing.numbers(options["std"], "--std"),
        size=value_parsing.size(options["size"]),
        categories=options["categories"],
        num_classes=options["num_classes"],
        key=options["key"],
        prefix=options["prefix"],
    )
    if options["preprocess"] == "whole":
        model = replace(model, preprocessing=model.preprocessing.whole())
    if not options.get("quiet"):
        for note in model.notes:
            print_note(note)
    if options["dtype"] not in DTYPES:
        raise ValueError(f"there is no --dtype {options['dtype']}; there are {', '.join(DTYPES)}")
    model.module.to(_device(options["device"]), getattr(torch, options["dtype"]))
    return model


def _device(name: str) -> torch.device:
    counts = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "cpu": 1}
    if name == "auto":
        return torch.device(next(kind for kind, count in counts.items() if count))
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"there is no device {name!r}; say cpu, cuda, cuda:1, mps or auto") from None
    if not (device.index or 0) < (count := counts.get(device.type, 0)):
        raise ValueError(f"there is no {name}: {count} {device.type.upper()} devices are found; say --device cpu")
    return device
