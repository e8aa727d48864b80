"""Several explanations of the same inputs: of several methods, of several targets, or of both."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor, equal

from cnnviz.explanations.drawn_above import drawing_function, page_function
from cnnviz.explanations.explanation import Explanation
from cnnviz.explanations.joint import JointExplanation
from cnnviz.explanations.saving import UNREADABLE, described, read_tensors, restored
from cnnviz.explanations.tables import Table
from cnnviz.images.in_notebooks import InNotebooks
from cnnviz.images.originals import At
from cnnviz.images.places import check_file
from cnnviz.images.reading import one_line
from cnnviz.images.writing import PICTURES, encoded, packed, write

if TYPE_CHECKING:
    from PIL import Image

    from cnnviz.registry.protocols import Renderer

Answer = TypeVar("Answer")


class _Several(InNotebooks):
    """What several explanations can do, whatever holds them."""

    def entries(self) -> list[tuple[str, Explanation]]:
        """Each explanation with the name of its method, one after the other."""
        return list(_entries("", self))

    def grid(
        self,
        renderer: str | Renderer | None = None,
        columns: int | None = None,
        at: At = "input",
        **settings: Any,
    ) -> Image.Image:
        """The picture of :func:`cnnviz.grid`, which shows itself in notebooks."""
        from PIL import Image

        pixels = drawing_function("comparison", "grid")(self, renderer, columns, at, **settings)
        return Image.fromarray(pixels)

    def table(self) -> Table:
        """A row for each input and explanation: input, method, class, score, and probability where it is known."""
        entries = self.entries()
        return Table(
            _row(number, name, each)
            for number in range(max((len(each) for _, each in entries), default=0))
            for name, each in ((name, each[number]) for name, each in entries if number < len(each))
        )

    def to_dataframe(self) -> Any:
        """The table as pandas' DataFrame. Raises ImportError where pandas is not installed."""
        return self.table().to_dataframe()

    def save(
        self,
        path: str | Path,
        renderer: str | Renderer | None = None,
        at: At = "input",
        inputs: bool = True,
        **settings: Any,
    ) -> list[Path]:
        """Write all of them. Returns the files written.

        Args:
            path: ``.safetensors`` for one file with all values, for :meth:`load`, which holds equal inputs once; a
                picture's suffix for the :meth:`grid`; or a folder, which is made, for a picture of each explanation and
                input, such as ``grad_cam-0.png``.
            renderer, at, settings: how pictures are drawn, as for :meth:`Explanation.render`.
            inputs: False leaves the inputs out of a ``.safetensors`` file.

        Raises:
            ValueError: for another suffix.
        """
        path = Path(path)
        kind = path.suffix.lower()
        if kind == ".safetensors":
            write(path, packed(*_described(self, inputs)))
            return [path]
        if kind in PICTURES:
            import numpy as np

            write(path, encoded(np.asarray(self.grid(renderer, at=at, **settings)), kind))
            return [path]
        if kind and not path.is_dir():
            raise ValueError(
                f"{path} has no suffix that can be written; use .safetensors, {', '.join(PICTURES)}, or a folder"
            )
        drawn = {name: each.render(renderer, at, **settings) for name, each in _file_names(self.entries()).items()}
        path.mkdir(exist_ok=True)
        written = []
        for name, pictures in drawn.items():
            for number, picture in enumerate(pictures):
                file = path / (f"{name}-{number}.png" if len(pictures) > 1 else f"{name}.png")
                write(file, encoded(picture, ".png"))
                written.append(file)
        return written

    def report(
        self,
        path: str | Path,
        *,
        model: Any = None,
        verdict: bool = True,
        depth: bool | Sequence[Any] = True,
        title: str = "",
    ) -> Path:
        """Write one file of HTML in which all maps are looked at: pictures x methods, classes, opacity, layers, values.

        It holds pictures and maps (in 8 bits, with their scale), and asks for nothing elsewhere. A file that is there
        is replaced. Returns the file.

        Args:
            path: ``.html``.
            model: what was explained. Without it there is neither a verdict nor another layer.
            verdict: whether the sanity checks are asked of each method, on the first pictures. They cost four
                explanations of each of these.
            depth: the layer, or the layers, at which class activation maps are shown too. True chooses some through the
                network; False: none. Methods of more than one gradient are shown at their own layer only.
            title: stands above the page.

        Raises:
            ValueError: for another suffix, for no explanations, for more than 100 inputs, where several inputs of a
                model are explained together, for a model that gives these inputs other scores or needs more than them,
                and for layers at which nothing can be shown.
            LookupError: for a layer that is not there.
        """
        written: Path = page_function("report.making", "write_report")(
            self, path, model=model, verdict=verdict, depth=depth, title=title
        )
        return written

    def __str__(self) -> str:
        return repr(self)


class Explanations(_Several, dict[str, Answer]):
    """What :func:`cnnviz.explain` gives for several methods: a dict by their names, in the order they were given.

    A value is an :class:`~cnnviz.Explanation`, or an :class:`ExplanationList` for several targets, or a
    :class:`JointExplanation` where several inputs are explained together.
    """

    def __repr__(self) -> str:
        return "\n".join(
            [f"Explanations of {len(self)} methods:", *(f"  {name}: {_told(self[name])}" for name in self)]
        )

    @classmethod
    def load(cls, path: str | Path) -> Explanations[Any]:
        """Read back what ``save("….safetensors")`` kept. Raises ValueError for a file that holds something else."""
        return cls(_loaded(path, dict))


class ExplanationList(_Several, list[Explanation]):
    """What :func:`cnnviz.explain` gives for ``top(k)`` or ``several(...)``: a list with one for each target."""

    def __repr__(self) -> str:
        return "\n".join([f"ExplanationList of {len(self)} targets:", *(f"  {_told(each)}" for each in self)])

    @classmethod
    def load(cls, path: str | Path) -> ExplanationList:
        """Read back what ``save("….safetensors")`` kept. Raises ValueError for a file that holds something else."""
        return cls(_loaded(path, list))


def _told(answer: Any) -> str:
    if isinstance(answer, Explanation):
        titles = answer.titles()
        return ", ".join(titles[:4]) + (f" and {len(titles) - 4} more" if len(titles) > 4 else "")
    return "; ".join(map(_told, answer))


def _entries(name: str, answer: Any) -> Iterator[tuple[str, Explanation]]:
    if isinstance(answer, Explanation):
        yield name or answer.recipe, answer
    elif isinstance(answer, Mapping):
        for method, each in answer.items():
            yield from _entries(method, each)
    else:
        for each in answer:
            yield from _entries(name, each)


def _row(number: int, name: str, each: Explanation) -> dict[str, Any]:
    probability = None if each.told_probability is None else float(each.told_probability[0])
    return {
        "input": number,
        "method": name,
        "class": each.names()[0],
        "score": float(each.score[0]),
        "probability": probability,
    }


def _file_names(entries: Sequence[tuple[str, Explanation]]) -> dict[str, Explanation]:
    """A name for each, short and without what a file system forbids; no two alike."""
    names: dict[str, Explanation] = {}
    for method, each in entries:
        stem = re.sub(r"[^\w.,()=+-]+", "-", method).strip("-.")[:80] or "map"
        name, number = stem, 2
        while name.lower() in {taken.lower() for taken in names}:
            name, number = f"{stem}_{number}", number + 1
        names[name] = each
    return names


def _described(answer: Any, inputs: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of all explanations, and how they belong together."""
    tensors: dict[str, Tensor] = {}
    parts: list[dict[str, Any]] = []
    kept: list[tuple[str, Tensor]] = []

    def form(each: Any) -> Any:
        if isinstance(each, Mapping):
            return {"by name": [[name, form(one)] for name, one in each.items()]}
        if not isinstance(each, Explanation):
            return {"together" if isinstance(each, JointExplanation) else "list": [form(one) for one in each]}
        own, about = described(each, inputs)
        number = len(parts)
        for name, tensor in own.items():
            same = next((old for old, known in kept if name == "inputs" and _equal(known, tensor)), None)
            if same is not None:
                about["inputs as"] = same
                continue
            tensors[f"{number}.{name}"] = tensor.clone()  # a file can't hold one tensor under two names
            if name == "inputs":
                kept.append((f"{number}.{name}", tensor))
        parts.append(about)
        return number

    told = form(answer)
    return tensors, {"several": parts, "form": told}


def _equal(first: Tensor, second: Tensor) -> bool:
    return first.dtype == second.dtype and first.shape == second.shape and equal(first, second)


def _loaded(path: str | Path, kind: type) -> Any:
    check_file(Path(path), "a file of explanations")
    try:
        tensors, about = read_tensors(path)
        found = _restored(tensors, about["several"], about["form"])
    except KeyError as error:
        raise ValueError(f"{path} holds no several explanations that cnnviz saved: it has no {error}") from error
    except (*UNREADABLE, RecursionError) as error:
        raise ValueError(f"{path} holds no several explanations that cnnviz saved: {one_line(error)}") from error
    if not isinstance(found, kind):
        other = "Explanations" if kind is list else "ExplanationList"
        raise ValueError(f"{path} was saved by {other}; read it by cnnviz.explanations.{other}.load")
    return found


def _restored(tensors: Mapping[str, Tensor], parts: Any, form: Any) -> Any:
    if isinstance(form, dict) and len(form) == 1:
        ((kind, members),) = form.items()
        if kind == "by name":
            return Explanations({str(name): _restored(tensors, parts, each) for name, each in members})
        whole = [_restored(tensors, parts, each) for each in members]
        return JointExplanation(whole) if kind == "together" else ExplanationList(whole)
    if type(form) is not int or not isinstance(parts, list) or not 0 <= form < len(parts):
        raise ValueError(f"its form is {str(form)[:40]}, which is none of its explanations")
    own = f"{form}."
    chosen = {name.removeprefix(own): value for name, value in tensors.items() if name.startswith(own)}
    if "inputs as" in parts[form]:
        chosen["inputs"] = tensors[parts[form]["inputs as"]]
    return restored(chosen, parts[form])
