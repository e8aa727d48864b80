"""An explanation that is read from a shard, piece by piece, when it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cnnviz.datasets.shards.item_reading import read_ahead, sha256_of
from cnnviz.datasets.shards.open_shard import OpenShard
from cnnviz.datasets.shards.shard_file import NO_CLASS, compact
from cnnviz.datasets.stored.run_folder import NoAnswer, RunFolder
from cnnviz.engine.validation import COMPUTABLE
from cnnviz.explanations.explanation import Explanation
from cnnviz.explanations.options import ExplainOptions
from cnnviz.explanations.saved_explanations import read_description, saved_options
from cnnviz.images.originals import At, Original, opened
from cnnviz.images.preprocessing import Preprocessing
from cnnviz.images.reading import one_line

if TYPE_CHECKING:
    from cnnviz.explanations.evidence_maps import Sign
    from cnnviz.registry.protocols import Renderer

DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in COMPUTABLE}


@dataclass(frozen=True)
class StoredItem:
    """One answered item of a run, and what its source has of it."""

    folder: RunFolder
    number: int
    dtype: str = "float32"
    """Of the inputs, as the network took them."""

    def inputs(self, preprocessing: Preprocessing | None) -> Tensor:
        """(1, C, *spatial), as the network saw it.

        Raises FileNotFoundError where the picture can't be read again, ValueError where it has changed.
        """
        shard, slot, row = self.folder.row(self.number)
        item = self.folder.item(self.number)
        read = next(read_ahead([[item]], self.folder.source, preprocessing, masks=False, readers=1))[0]
        if read.input is None:
            raise self._gone(str(read.error))
        self._check_same(row, read.sha256)
        known = shard.at("input_shape", slot).tolist() if shard.has("input_shape") else None
        if known is not None and list(read.input.shape) != known:
            raise ValueError(f"the picture {item.id!r} becomes an input {tuple(read.input.shape)}, and was {known}")
        return read.input[None].to(DTYPES.get(self.dtype, torch.float32), copy=True)

    def original(self, preprocessing: Preprocessing | None) -> Original | None:
        """Where the input lies in its picture; None where it is no part of one. A file is not read."""
        shard, slot, row = self.folder.row(self.number)
        height, width = shard.numbers("size")[slot].tolist()
        if preprocessing is None or min(height, width) < 1:
            return None
        left, top, right, bottom = shard.numbers("box")[slot].tolist()
        try:
            found = self.folder.source.open(self.folder.item(self.number))
        except OSError as error:
            raise self._gone(one_line(error)) from error
        path, sha256, pixels = None, row.get("sha256"), None
        if isinstance(found, str | Path):
            path = str(Path(found).absolute())
        elif not isinstance(found, Tensor):
            known = opened(found, preprocessing)[1]  # kept itself: there is no file to read again
            pixels = None if known is None else known.pixels
            self._check_same(row, None if pixels is None else sha256_of(pixels))
            sha256 = None
        return Original((height, width), (left, top, right, bottom), path, sha256, pixels)

    def _gone(self, reason: str) -> FileNotFoundError:
        return FileNotFoundError(
            f"the picture {self.folder.item(self.number).id!r} can't be read again: {reason}; "
            f"open_batch({str(self.folder.out)!r}, source=...) takes where it is now"
        )

    def _check_same(self, row: dict[str, Any], sha256: str | None) -> None:
        if row.get("sha256") != sha256:
            raise ValueError(
                f"the picture {row['id']!r} has changed since it was explained; explain it in a new folder"
            )


class StoredExplanation(Explanation):
    """An :class:`~cnnviz.Explanation` of one item of a batch. It does all that others do.

    Its values are read from the shard when they are first used, and its inputs from the source of the run.
    """

    @property
    def _item(self) -> StoredItem:
        item: StoredItem = vars(self)["_stored"]
        return item

    @property
    def item_id(self) -> str:
        """The id of the item in the run."""
        return self._item.folder.item(self._item.number).id

    @cached_property  # a field, which is read when it is asked for
    def values(self) -> Tensor:
        shard, slot, _ = self._item.folder.row(self._item.number)
        method = vars(self)["_method"]
        if not shard.has(f"maps/{method}"):
            raise NoAnswer(f"{shard.path} has no maps of {method}")
        return shard.at(f"maps/{method}", slot)[None].clone()

    @cached_property  # a field, which is read when it is asked for
    def inputs(self) -> Tensor:
        return self._item.inputs(self.preprocessing)

    @cached_property  # a field, which is read when it is asked for
    def originals(self) -> tuple[Original | None, ...] | None:
        original = self._item.original(self.preprocessing)
        return None if original is None else (original,)

    @cached_property  # a field, which is read when it is asked for
    def notes(self) -> Mapping[str, Tensor]:
        shard, slot, _ = self._item.folder.row(self._item.number)
        method = vars(self)["_method"]
        names = [name for name in shard.told(method, "notes") if shard.has(f"notes/{method}/{name}")]
        return {name: shard.at(f"notes/{method}/{name}", slot)[None].clone() for name in names}

    def without_inputs(self) -> Explanation:
        """The same with the shape of its inputs alone, for what needs no picture: the source is not read."""
        known = vars(self)
        if "inputs" in known:
            return self
        shard, slot, _ = self._item.folder.row(self._item.number)
        if not shard.has("input_shape"):
            return self
        shape = shard.at("input_shape", slot).tolist()
        fields = {
            name: getattr(self, name)
            for name in Explanation.__dataclass_fields__
            if name not in ("inputs", "originals")
        }
        return StoredExplanation(**fields, inputs=torch.empty((1, *shape), device="meta"))

    @property
    def usual_renderer(self) -> str:
        return self.without_inputs().usual_renderer if "inputs" not in vars(self) else super().usual_renderer

    def heatmap(self, sign: Sign = "auto", at: At = "input") -> Any:
        if at != "input" or "inputs" in vars(self):
            return super().heatmap(sign, at)
        return Explanation.heatmap(self.without_inputs(), sign)

    def save(
        self,
        path: str | Path,
        renderer: str | Renderer | None = None,
        at: At = "input",
        inputs: bool = True,
        **settings: Any,
    ) -> list[Path]:
        """As :meth:`cnnviz.Explanation.save`; ``inputs=False`` reads no picture."""
        if inputs or "inputs" in vars(self):
            return super().save(path, renderer, at, inputs, **settings)
        return Explanation.save(self.without_inputs(), path, renderer, at, inputs, **settings)

    def to(self, place: str | torch.device | torch.dtype, /) -> Explanation:
        self.inputs  # noqa: B018  # they are moved as well
        return super().to(place)


def stored_explanation(folder: RunFolder, number: int, shard: OpenShard, slot: int, method: str) -> StoredExplanation:
    """The explanation of an item that was answered; no map is read. Raises ValueError for a shard that is damaged."""
    row = shard.row(slot)
    told, options, preprocessing = described(shard, method, folder.plan.identity.get("preprocessing"))
    target = shard.numbers("target")[slot : slot + 1].clone()
    probability = shard.numbers("probability")[slot : slot + 1].clone()
    objective = row.get("objective", told.get("objective"))
    new = object.__new__(StoredExplanation)
    fields: dict[str, Any] = {
        "target": None if int(target) == NO_CLASS else target,
        "score": shard.numbers("score")[slot : slot + 1].clone(),
        "recipe": told["recipe"],
        "preprocessing": preprocessing,
        "categories": folder.plan.categories,
        "renderer": told.get("renderer"),
        "objective": tuple(objective) if isinstance(objective, list) else objective,
        "probability": None if bool(probability.isnan()) else probability,
        "boxes": shard.at("boxes", slot)[None].clone() if shard.has("boxes") else None,
        "options": options,
        "computed_in": told.get("computed_in"),
        "of": told.get("of", 0),
        "together": told.get("together", 1),
        "attribution": None,
        "fine_values": told.get("fine") if folder.reduced else None,
    }
    # the fields that are not here are read from the shard and the source when they are asked for
    vars(new).update(fields, _stored=StoredItem(folder, number, told.get("input_dtype", "float32")), _method=method)
    return new


def described(
    shard: OpenShard, method: str, preprocessing: Any
) -> tuple[dict[str, Any], ExplainOptions, Preprocessing | None]:
    """What a shard tells of all its explanations by a method, checked. Raises ValueError for what tells of none."""
    try:
        return _checked(compact({**shard.about["explanations"][method], "preprocessing": preprocessing}))
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"{shard.path} does not tell what {method} is: {one_line(error)}") from error


@lru_cache(maxsize=256)  # shards of a run tell the same
def _checked(text: str) -> tuple[dict[str, Any], ExplainOptions, Preprocessing | None]:
    about = read_description(text)
    preprocessing = Preprocessing.from_dict(about["preprocessing"]) if about["preprocessing"] else None
    if "recipe" not in about or not isinstance(about.get("fine"), bool | None):
        raise ValueError("it has no recipe, or does not tell whether its values are fine")
    return about, ExplainOptions(**saved_options(about)), preprocessing
