"""From pictures to files, batch by batch. A picture that cannot be read costs only itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from cnnviz.cli.errors import print_failure, print_line, reason
from cnnviz.cli.outputs import Destination, RequestedRenderer, file_names, open_in_viewer, write_together
from cnnviz.cli.progress import progress
from cnnviz.engine.deferred import uploaded
from cnnviz.explanations.explanation import Explanation
from cnnviz.explanations.prepare import Prepared, prepare
from cnnviz.formulas.attribution import ConfiguredAttribution
from cnnviz.images.batches import Picture, in_batches
from cnnviz.images.originals import Original
from cnnviz.models.loading import LoadedModel
from cnnviz.run.resolve_target import top as top_classes
from cnnviz.run.targets import Target

Originals: TypeAlias = tuple[Original | None, ...] | None
BatchHook = Callable[[Sequence[Path], Mapping[str, Explanation], RequestedRenderer], None]


@dataclass(frozen=True)
class Explainer:
    """Explains inputs by several methods, each under a name of its own."""

    model: LoadedModel
    attributions: Mapping[str, ConfiguredAttribution]
    """By the name of their explanations; a method that stands under several names is computed once."""
    target: Target
    options: Mapping[str, Any]
    """Further options of :func:`cnnviz.explain`: seed, memory, before_softmax."""
    renderers: Mapping[str, str] = field(default_factory=dict)
    """Which renderer the explanation of a name asks for, if not its method's."""
    top: int | None = None
    """Explain so many of the classes with the highest scores, instead of the target."""
    prepared: dict[torch.Size, Prepared] = field(default_factory=dict, repr=False)
    """The question as it was settled for the shape of the last inputs."""

    @property
    def names(self) -> list[str]:
        """The names of the explanations; those of ranks have their number behind them."""
        if self.top is None:
            return list(self.attributions)
        return [ranked(name, rank) for rank in range(self.top) for name in self.attributions]

    def __call__(self, inputs: Tensor, originals: Originals = None) -> dict[str, Explanation]:
        """The explanations of inputs (N, C, *spatial), by name; ``originals`` are the pictures they were made of."""
        return {name: replace(each, originals=originals) for name, each in self._explanations(inputs).items()}

    def _explanations(self, inputs: Tensor) -> dict[str, Explanation]:
        inputs = like_weights(inputs, self.model.module)
        methods = {attribution.method.name: attribution for attribution in self.attributions.values()}
        target = self.target if self.top is None else top_classes(self.top)
        if inputs.shape not in self.prepared:
            self.prepared.clear()
            asked = prepare(self.model, list(methods.values()), like=inputs, target=target, **self.options)
            self.prepared[inputs.shape] = asked
        results = self.prepared[inputs.shape](inputs)
        by_method = dict(zip(methods, results.values(), strict=True))
        if self.top is not None:
            return self._by_rank(by_method, self.top)
        explanations = {name: by_method[attribution.method.name] for name, attribution in self.attributions.items()}
        return explanations | {name: replace(explanations[name], renderer=own) for name, own in self.renderers.items()}

    def _by_rank(self, by_method: Mapping[str, list[Explanation]], count: int) -> dict[str, Explanation]:
        pairs = [(name, by_method[attribution.method.name]) for name, attribution in self.attributions.items()]
        return {ranked(name, rank): each[rank] for rank in range(count) for name, each in pairs}


def ranked(name: str, rank: int) -> str:
    """The name of a method's explanation of the class of this rank, counted from 0."""
    return f"{name}_{rank + 1}"


def like_weights(inputs: Tensor, model: nn.Module) -> Tensor:
    """The inputs on the device of the model's weights and of their dtype."""
    weight = next(model.parameters(), None)
    return inputs if weight is None else uploaded(inputs.to(weight.dtype), weight.device)


class Unreadable:
    """Prints why pictures cannot be read, and counts them; or raises the error, as for a command's only picture."""

    def __init__(self, raising: bool) -> None:
        self.count = 0
        self._raising = raising

    def __call__(self, picture: Picture, error: Exception) -> None:
        if self._raising:
            raise error
        print_failure(reason(error))
        self.count += 1


def batches(
    pictures: Sequence[Path], model: LoadedModel, size: int, unreadable: Unreadable
) -> Iterator[tuple[list[Path], Tensor, tuple[Original | None, ...]]]:
    """Inputs (N, C, *spatial) of one size, N at most ``size``, with their files, and with their originals."""
    return in_batches(((path, path) for path in pictures), model.preprocessing, size, unreadable)


def explain_files(
    explainer: Explainer,
    pictures: Sequence[Path],
    renderer: RequestedRenderer,
    destination: Destination,
    options: Mapping[str, Any],
    on_batch: BatchHook | None = None,
) -> int:
    """Explain them all, write the files, print a line for each. Returns how many pictures failed; raises if all did.

    ``on_batch`` is handed the pictures of each batch and their explanations, before these are written.
    """
    names = file_names(destination.path, pictures, explainer.names) if destination.folder else {}
    together: dict[str, list[Explanation]] = {name: [] for name in explainer.names}
    written: list[Path] = []
    unreadable = Unreadable(raising=len(pictures) == 1)

    def report(path: Path, explanation: Explanation) -> None:
        written.append(path)
        if not options["quiet"]:
            print_line(f"{path}: {', '.join(explanation.titles())}")

    def process(paths: Sequence[Path], inputs: Tensor, originals: tuple[Original | None, ...]) -> None:
        explanations = explainer(inputs, originals)
        renderer.check(explanations.values())
        if on_batch is not None:
            on_batch(paths, explanations, renderer)
        if not destination.folder:
            for name, explanation in explanations.items():
                together[name].append(explanation)
            return
        destination.path.mkdir(parents=True, exist_ok=True)
        for item, picture in enumerate(paths):
            for name, explanation in explanations.items():
                renderer.save(explanation[item], names[picture, name], options["at"])
                report(names[picture, name], explanation[item])

    def failures(
        paths: Sequence[Path], inputs: Tensor, originals: tuple[Original | None, ...]
    ) -> list[tuple[Path, Exception]]:
        """What fails for which picture; those of a batch that fails are explained one by one."""
        try:
            process(paths, inputs, originals)
        except Exception as error:
            if len(paths) == 1 or not destination.folder:
                return [(path, error) for path in paths]
            parts = [slice(item, item + 1) for item in range(len(paths))]
            return [fault for one in parts for fault in failures(paths[one], inputs[one], originals[one])]
        return []

    explained = failed = 0
    with progress("explaining", options["quiet"] or len(pictures) == 1, len(pictures)) as step:
        for paths, inputs, originals in batches(pictures, explainer.model, options["batch"], unreadable):
            faults = failures(paths, inputs, originals)
            if faults and not (destination.folder and written):
                raise faults[0][1]  # it would fail for all of them
            for path, error in faults:
                print_failure(f"{path}: {reason(error)}")
            failed += len(faults)
            explained += len(paths)
            step(explained + unreadable.count, len(pictures))
    if any(together.values()):
        report(destination.path, write_together(destination.path, together, renderer, options["at"]))
    if options["show"]:
        open_in_viewer(written)
    return failed + unreadable.count
