"""From pictures to files, batch by batch. A picture that cannot be read costs only itself."""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from cnnviz.cli.answer_marks import answer_mark
from cnnviz.cli.answers import Answers
from cnnviz.cli.errors import Interrupted, print_failure, print_line, reason
from cnnviz.cli.failures import Failures, Unreadable
from cnnviz.cli.map_files import by_file, map_names, write_maps
from cnnviz.cli.outputs import STDOUT, Destination, RequestedRenderer, open_in_viewer, write_together
from cnnviz.cli.picture_files import PictureFiles
from cnnviz.cli.places import earlier_pages, settle
from cnnviz.cli.progress import progress
from cnnviz.cli.verbose import Watch
from cnnviz.engine.deferred import uploaded
from cnnviz.engine.meter import metered
from cnnviz.explanations.explanation import Explanation
from cnnviz.explanations.prepare import Prepared, prepare
from cnnviz.formulas.expr import Expr
from cnnviz.images.batches import READERS, in_batches
from cnnviz.images.originals import Original
from cnnviz.models.loading import LoadedModel
from cnnviz.run.resolve_target import several, top
from cnnviz.run.targets import Target

Originals: TypeAlias = tuple[Original | None, ...] | None
FULL = (errno.ENOSPC, errno.EDQUOT)  # what a full disk says: all other pictures would fail as well


@dataclass(frozen=True)
class Explainer:
    """Explains inputs by several methods, each under a name of its own."""

    model: LoadedModel
    attributions: Mapping[str, Expr]
    """By the name of their explanations; a method that stands under several names is computed once."""
    target: Target
    options: Mapping[str, Any]
    """Further options of :func:`cnnviz.explain`: seed, memory, before_softmax."""
    renderers: Mapping[str, str] = field(default_factory=dict)
    """Which renderer the explanation of a name asks for, if not its method's."""
    all_of: top | several | None = None
    """Several targets that are explained for every picture, instead of the one."""
    labels: tuple[str, ...] = ()
    """Of each of several targets what stands behind the names of its explanations."""
    targets: Mapping[Path, int] | None = None
    """A class for each picture, instead of the target."""
    watch: Watch | None = None
    """Tells what each batch was asked and what it took."""
    prepared: dict[torch.Size, Prepared] = field(default_factory=dict, repr=False)
    """The question as it was settled for the shape of the last inputs."""

    @property
    def names(self) -> list[str]:
        """The names of the explanations; those of several targets have the target's label behind them."""
        if not self.labels:
            return list(self.attributions)
        return [f"{name}_{label}" for label in self.labels for name in self.attributions]

    def method_of(self, name: str) -> str:
        """The method of the explanation of that name."""
        return [*self.attributions][self.names.index(name) % len(self.attributions)]

    def __call__(
        self, inputs: Tensor, originals: Originals = None, paths: Sequence[Path] = ()
    ) -> dict[str, Explanation]:
        """The explanations of inputs (N, C, *spatial), by name.

        ``originals`` are the pictures they were made of, and ``paths`` their files, if each has a target of its own.
        """
        target = self.all_of or (self.target if self.targets is None else [self.targets[path] for path in paths])
        ask = partial(self._explanations, target=target)
        explanations = ask(inputs) if self.watch is None else self.watch(ask, inputs)
        return {name: replace(each, originals=originals) for name, each in explanations.items()}

    def _explanations(self, inputs: Tensor, target: Target | top | several) -> dict[str, Explanation]:
        inputs = like_weights(inputs, self.model.module)
        methods = list(dict.fromkeys(self.attributions.values()))
        if inputs.shape not in self.prepared:
            self.prepared.clear()
            asked = prepare(self.model, methods, like=inputs, target=target, **self.options)
            self.prepared[inputs.shape] = asked
        results = self.prepared[inputs.shape](inputs, target)
        by_method = dict(zip(methods, results.values(), strict=True))
        if self.labels:
            pairs = [by_method[attribution] for attribution in self.attributions.values()]
            each = [answers[place] for place in range(len(self.labels)) for answers in pairs]
            return dict(zip(self.names, each, strict=True))
        explanations = {name: by_method[attribution] for name, attribution in self.attributions.items()}
        return explanations | {name: replace(explanations[name], renderer=own) for name, own in self.renderers.items()}


def like_weights(inputs: Tensor, model: nn.Module) -> Tensor:
    """The inputs on the device of the model's weights and of their dtype."""
    weight = next(model.parameters(), None)
    return inputs if weight is None else uploaded(inputs.to(weight.dtype), weight.device)


@dataclass(frozen=True)
class Beside:
    """What a command writes beside the answers."""

    places: Mapping[tuple[Path, str], Path]
    """The file for each picture and method."""
    make: Callable[[Path, Mapping[str, Explanation], RequestedRenderer, Collection[Path]], None]
    """Is handed a picture, its explanations by name, and the files that are there and stay."""


def batches(
    pictures: Sequence[Path], model: LoadedModel, size: int, unreadable: Failures | Unreadable, jobs: int = READERS
) -> Iterator[tuple[list[Path], Tensor, tuple[Original | None, ...]]]:
    """Inputs (N, C, *spatial) of one size, N at most ``size``, with their files, and with their originals.

    So many ``jobs`` read pictures ahead.
    """
    return in_batches(((path, path) for path in pictures), model.preprocessing, size, unreadable, readers=jobs)


def explain_files(
    explainer: Explainer,
    files: PictureFiles,
    renderer: RequestedRenderer,
    place: Destination,
    options: Mapping[str, Any],
    reads: Sequence[Path] = (),
    beside: Beside | None = None,
    suffix: str = ".png",
    rows: Answers | None = None,
) -> int:
    """Explain them all, write the files, print a line for each. Returns how many pictures failed.

    ``reads`` are files that the command reads beside the pictures. What is written ``beside`` the answers is made
    from each picture's explanations. Files in a folder have the ``suffix``. With ``rows`` these are added to, and no
    lines are printed. Raises the error of a single picture, and one that all of the first have.
    """
    names = map_names(place.path, files.paths, explainer.names, files.below, suffix) if place.folder else {}
    answers = {**names, **(beside.places if beside is not None else {})}
    places = dict.fromkeys(names.values())  # one may take several answers of a picture
    writes = [*places, *(beside.places.values() if beside is not None else ())]
    if not place.folder and place.path != STDOUT:
        writes += [place.path, *earlier_pages(place.path, len(files.paths) * len(explainer.names))]
    asked = {path: [pair] for pair, path in names.items()}  # what is in a file with several answers has no mark
    if not place.folder:
        asked = {place.path: [(picture, name) for picture in files.paths for name in explainer.names]}
    marks = {path: partial(answer_mark, explainer, pairs, renderer, options) for path, pairs in asked.items()}
    there = settle(writes, [*files.paths, *reads], options, marks)
    wanted = _without(files.paths, answers, there) if answers else files.paths
    wanted = [] if place.path in there else wanted
    quiet, told = options["quiet"] or rows is not None, Answers() if rows is None else rows
    for picture in files.paths:
        if picture not in wanted:
            kept = dict.fromkeys(names[picture, name] for name in explainer.names) if names else [place.path]
            told.skip(picture, list(kept))
    if len(wanted) < len(files.paths) and not quiet:
        print_line(f"{len(files.paths) - len(wanted)} of {len(files.paths)} pictures have their answers already")
    together: dict[str, list[Explanation]] = {name: [] for name in explainer.names}
    shown: list[Path] = []
    written: list[Path] = []
    done = 0
    failures = Failures(len(wanted))

    def report(path: Path, titles: Iterable[str]) -> None:
        if place.path != STDOUT:
            written.append(path)
            if not quiet:
                print_line(f"{path}: {', '.join(titles)}")

    def keep(picture: Path, explanations: Mapping[str, Explanation]) -> None:
        if beside is not None:
            beside.make(picture, explanations, renderer, there)
        if not place.folder:
            shown.append(picture)
            for name, explanation in explanations.items():
                together[name].append(explanation)
            return
        for path, part in by_file(names, picture, explanations).items():
            if path not in there:
                write_maps(path, part, renderer, options.get("at"), marks[path]())
                report(path, dict.fromkeys(title for each in part.values() for title in each.titles()))
            for name, explanation in part.items():
                told.add(picture, name, explainer.method_of(name), explanation, [path])

    alone = len(wanted) == 1  # the bar of a single picture counts its passes
    bar = progress("explaining", options["quiet"] or not wanted, None if alone else len(wanted), alone)
    with bar as step, metered(step if alone else None):
        try:
            for paths, inputs, originals in batches(
                wanted, explainer.model, options["batch"], failures, options["jobs"]
            ):
                for picture, answer in _answers(explainer, renderer, paths, inputs, originals):
                    error = answer if isinstance(answer, Exception) else _error_of(keep, picture, answer)
                    if error is None:
                        done += 1
                        failures.settled()
                    elif isinstance(error, OSError) and error.errno in FULL:
                        raise error
                    else:
                        failures(picture, error)
                    if not alone:
                        step(done + failures.count, len(wanted))
            failures.settled()
            if any(together.values()):
                files_of = write_together(
                    place, together, shown, renderer, options, [*files.paths, *reads], marks[place.path]()
                )
                for path, explanation in files_of.items():
                    report(path, explanation.titles())
                for name, parts in together.items():
                    for picture, explanation in zip(shown, parts, strict=True):
                        told.add(picture, name, explainer.method_of(name), explanation, list(files_of))
        except KeyboardInterrupt:
            raise Interrupted(_progress(done, len(wanted), place)) from None
        except OSError as error:
            if error.errno not in FULL or not done or not place.folder:
                raise
            print_failure(f"{reason(error)}; {_progress(done, len(wanted), place)}")
            told.fail_all(failures.reasons)
            told.fail_rest(wanted, reason(error))
            failures.count += len(wanted) - done - failures.count
        finally:
            told.fail_all(failures.reasons)
    if options["show"]:
        open_in_viewer(written)
    return failures.count


def _without(pictures: Sequence[Path], answers: Mapping[tuple[Path, str], Path], there: Collection[Path]) -> list[Path]:
    """The pictures of which not all answers are there."""
    missing = {picture for (picture, _), path in answers.items() if path not in there}
    return [picture for picture in pictures if picture in missing]


def _answers(
    explainer: Explainer,
    renderer: RequestedRenderer,
    paths: Sequence[Path],
    inputs: Tensor,
    originals: tuple[Original | None, ...],
) -> Iterator[tuple[Path, dict[str, Explanation] | Exception]]:
    """Each picture's explanations by name, or why there are none; those of a batch that fails are asked one by one."""
    try:
        explanations = explainer(inputs, originals, paths)
    except Exception as error:
        if len(paths) == 1:
            yield paths[0], error
            return
        for item in range(len(paths)):
            one = slice(item, item + 1)
            yield from _answers(explainer, renderer, paths[one], inputs[one], originals[one])
        return
    renderer.check(explanations.values())
    for item, path in enumerate(paths):
        yield path, {name: explanation[item] for name, explanation in explanations.items()}


def _error_of(keep: Callable[..., None], picture: Path, answer: Mapping[str, Explanation]) -> Exception | None:
    try:
        keep(picture, answer)
    except Exception as error:
        return error
    return None


def _progress(done: int, wanted: int, place: Destination) -> str:
    if not place.folder or not done:
        return "nothing was written"
    return f"{done} of {wanted} pictures are answered, and --skip-existing goes on with the others"
