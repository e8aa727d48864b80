"""From pictures to files, batch by batch. A picture that cannot be read costs only itself."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnviz.cli.errors import FAILED, PARTLY, reason, say, tell
from cnnviz.cli.outputs import Destination, Drawing, file_names, write_together

if TYPE_CHECKING:
    from torch import Tensor

    from cnnviz.explanations.explanation import Explanation
    from cnnviz.formulas.expr import Named
    from cnnviz.models.loading import LoadedModel
    from cnnviz.run.targets import Target

Also = Callable[[Sequence[Path], "Mapping[str, Explanation]", Drawing], None]


@dataclass(frozen=True)
class Question:
    """What is asked of every picture."""

    model: LoadedModel
    formulas: Mapping[str, Named]
    target: Target
    how: Mapping[str, Any]
    """What else ``explain`` is told: seed, memory, before_softmax."""

    def __call__(self, inputs: Tensor) -> dict[str, Explanation]:
        """The answers by method."""
        from cnnviz.explanations.explain import explain

        parameter = next(self.model.module.parameters(), None)
        inputs = inputs if parameter is None else inputs.to(parameter.device, parameter.dtype)
        formulas = list(self.formulas.values())
        found = explain(self.model, inputs, formulas, target=self.target, **self.how)
        return dict(zip(self.formulas, found.values(), strict=True))


def found_pictures(paths: Sequence[str]) -> tuple[list[Path], int]:
    """The files that paths and folders stand for; of those that are not there is told, and how many they are."""
    from cnnviz.images.files import find_pictures

    found: dict[Path, None] = {}
    missing = 0
    for path in paths:
        try:
            found |= dict.fromkeys(find_pictures(path))
        except (OSError, ValueError) as error:
            if len(paths) == 1:
                raise
            tell(reason(error))
            missing += 1
    if not paths:
        raise ValueError("no pictures given; name at least one file or folder")
    return list(found), missing


def answered(
    question: Question,
    pictures: Sequence[Path],
    drawing: Drawing,
    destination: Destination,
    *,
    batch: int,
    quiet: bool,
    show: bool,
    also: Also | None = None,
) -> int:
    """Explain them all, write the files, tell of each. Returns how many pictures failed; raises where all did.

    ``also`` is handed the pictures of each batch and their answers, before these are written.
    """
    names = file_names(destination.path, pictures, list(question.formulas)) if destination.folder else {}
    together: dict[str, list[Explanation]] = {name: [] for name in question.formulas}
    written: list[Path] = []
    failed = 0

    def done(path: Path, explanation: Explanation) -> None:
        written.append(path)
        if not quiet:
            say(f"{path}: {', '.join(explanation.titles())}")

    def take(paths: Sequence[Path], inputs: Tensor) -> None:
        answers = question(inputs)
        drawing.check(answers.values())
        if also is not None:
            also(paths, answers, drawing)
        if destination.folder:
            destination.path.mkdir(parents=True, exist_ok=True)
            _write_each(paths, answers, names, drawing, done)
        else:
            for name, answer in answers.items():
                together[name].append(answer)

    def faults(paths: Sequence[Path], inputs: Tensor) -> list[tuple[Path, Exception]]:
        """What goes wrong with which; those of a batch that fails are asked one by one."""
        try:
            take(paths, inputs)
        except Exception as error:
            if len(paths) == 1 or not destination.folder:
                return [(path, error) for path in paths]
            alone = (([path], inputs[item : item + 1]) for item, path in enumerate(paths))
            return [fault for each in alone for fault in faults(*each)]
        return []

    with _progress(len(pictures), quiet) as advance:
        for paths, inputs in batches(question.model, pictures, batch):
            if isinstance(inputs, Exception):
                if len(pictures) == 1:
                    raise inputs
                tell(reason(inputs))
                failed += 1
            else:
                found = faults(paths, inputs)
                if found and not (destination.folder and written):
                    raise found[0][1]  # it would go wrong for all of them
                for path, error in found:
                    tell(f"{path}: {reason(error)}")
                failed += len(found)
            advance(len(paths))
    if any(together.values()):
        done(destination.path, write_together(destination.path, together, drawing))
    if show:
        _show(written)
    return failed


def status(pictures: int, failed: int) -> int:
    """The exit status of work of which a part failed."""
    return 0 if failed == 0 else PARTLY if failed < pictures else FAILED


def _write_each(
    paths: Sequence[Path],
    answers: Mapping[str, Explanation],
    names: Mapping[tuple[Path, str], Path],
    drawing: Drawing,
    done: Callable[[Path, Explanation], None],
) -> None:
    for item, picture in enumerate(paths):
        for method, answer in answers.items():
            answer[item].save(names[picture, method], drawing)
            done(names[picture, method], answer[item])


def batches(model: LoadedModel, pictures: Sequence[Path], most: int) -> Iterator[tuple[list[Path], Tensor | Exception]]:
    """Inputs (N, C, *spatial) of one size, N at most so many; or what was wrong with a picture."""
    import torch

    from cnnviz.images.files import read_input

    paths: list[Path] = []
    inputs: list[Tensor] = []
    for path in pictures:
        try:
            tensor = read_input(path, model.preprocessing)
        except (OSError, ValueError) as error:
            yield [path], error
            continue
        if inputs and (len(inputs) == most or inputs[0].shape != tensor.shape):
            yield paths, torch.stack(inputs)
            paths, inputs = [], []
        paths.append(path)
        inputs.append(tensor)
    if inputs:
        yield paths, torch.stack(inputs)


@contextmanager
def _progress(pictures: int, quiet: bool) -> Iterator[Callable[[int], None]]:
    if quiet or pictures == 1 or not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    columns: list[Any] = [*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn()]
    # lines for a file or a pipe must go there, and not to the terminal with the bar
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=sys.stdout.isatty()) as bar:
        task = bar.add_task("explaining", total=pictures)
        yield lambda count: bar.advance(task, count)


def _show(paths: Sequence[Path]) -> None:
    from PIL import Image

    for path in paths:
        with Image.open(path) as picture:
            picture.show()
