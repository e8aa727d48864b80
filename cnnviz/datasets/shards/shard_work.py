"""A shard's work in a worker process: read, explain, measure, commit. A function of the run and the shard alone."""

from __future__ import annotations

import copy
import json
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cnnviz.datasets.items import Item, Source
from cnnviz.datasets.plan import BatchPlan, read_plan
from cnnviz.datasets.question import PREDICTED, BatchQuestion, differences
from cnnviz.datasets.shards.alike import alike
from cnnviz.datasets.shards.commit import commit
from cnnviz.datasets.shards.item_answers import Answering, ItemAnswer
from cnnviz.datasets.shards.item_reading import MEMORY, ReadItem, read_ahead
from cnnviz.datasets.shards.shard_file import NO_CLASS, ShardContent, compact, pack
from cnnviz.datasets.workers.arithmetic import compute_by
from cnnviz.datasets.workers.fingerprint import without_address
from cnnviz.datasets.workers.pickling import Sent
from cnnviz.datasets.workers.work import RunError, Task
from cnnviz.explanations.explanation import Explanation
from cnnviz.images.limits import pixel_limit
from cnnviz.images.reading import one_line


@dataclass(frozen=True)
class ShardJob:
    """What a worker process of a batch run needs; see :class:`cnnviz.datasets.Job`."""

    folder: str
    """Absolute: where the plan is, and the shards go."""
    digest: str
    device: str
    threads: int
    readers: int
    """How many threads read pictures ahead."""
    payload: Sent = field(repr=False)
    """The question, or a function that makes it, the source, and the class of each label."""

    def open(self, device: str | None = None) -> Callable[[Task], dict[str, Any]]:
        """Load the model and the plan. Raises RunError where this process would compute something else."""
        torch.set_num_threads(self.threads)
        try:
            question, source, classes = self.payload.value()
        except (ImportError, AttributeError) as error:
            raise RunError(
                f"a worker can't load the question: {one_line(error)}; put what it needs into an installed module, "
                "or compute in this process, by workers=0 (--workers 0)"
            ) from error
        plan = read_plan(Path(self.folder))
        if plan.digest != self.digest:
            raise RunError(f"'{self.folder}' holds another run than the one that was started")
        if self.payload.was_sent:
            if not isinstance(question, BatchQuestion):
                question = question()
            compute_by(question.arithmetic, self.device)
            # a model that notes its passes is not as it was when it was asked about, but as it was sent
            expected = json.loads(compact(question.as_sent or plan.identity))
            differing = differences(expected, json.loads(compact(question.identity())))
            if differing:
                raise RunError(f"a worker would compute something else than the run: {', '.join(differing[:4])}")
        where = torch.device(device or self.device)
        if where.type != self.device:
            raise RunError(f"the run is computed on {self.device}, and the worker has {where}; its values would differ")
        weight = next(question.model.module.parameters(), None)
        if weight is not None and weight.device != where and (device or weight.device.type != where.type):
            module = copy.deepcopy(question.model.module).to(where)  # the model is the caller's, in his own process
            question = replace(question, model=replace(question.model, module=module), prepared={})
        return ShardWorker(plan, question, source, classes, self.readers)


@dataclass(eq=False)
class ShardWorker:
    """Does one task after the other."""

    plan: BatchPlan
    question: BatchQuestion
    source: Source
    classes: Mapping[int | str, int]
    readers: int

    def __post_init__(self) -> None:
        self._answering = Answering(self.question, self.classes)

    def __call__(self, task: Task) -> dict[str, Any]:
        """Compute a shard and commit it, or only try some of its items. Returns what is told of it, for JSON."""
        started = time.monotonic()
        path, size = self.plan.shard_path(task.shard), self.plan.size_of(task.shard)
        if task.probe is None and path.exists():
            return {"shard": task.shard, "items": size, "there": True}
        items = self.plan.items_of(task.shard)
        with warnings.catch_warnings(), pixel_limit(self.question.limit):
            warnings.simplefilter("ignore")  # of one picture among many
            read, answers = self._answers(items, task)
        if task.probe is not None:
            _without_memory(answers)
            return {"shard": task.shard, "probe": len(task.probe)}
        left_out = dict(task.left_out) | _without_memory(answers)
        answers = alike(answers, [*self.question.methods])
        content = _content(read, answers, self.question)
        disturbed: dict[str, Any] = {}
        if left_out:
            disturbed["left_out"] = {str(slot): reason for slot, reason in sorted(left_out.items())}
        if self._answering.is_halved:
            disturbed["halved"] = True
        about = {
            "run": self.plan.digest,
            "shard": task.shard,
            "first": self.plan.first_of(task.shard),
            "explanations": _explanations(answers, self.question),
            **({"disturbed": disturbed} if disturbed else {}),
        }
        packed = pack(content, about, float16=self.question.storage.kept == "float16")
        try:
            mine = commit(path, packed)
        except OSError as error:
            raise RunError(str(error)) from error
        errors = [answer.error for answer in answers if answer.error]
        return {
            "shard": task.shard,
            "items": size,
            "failed": len(errors),
            "error": errors[0] if errors else None,
            "unmeasured": _unmeasured(answers),
            "bytes": len(packed),
            "seconds": round(time.monotonic() - started, 3),
            "there": not mine,
            **({"disturbed": sorted(disturbed)} if disturbed else {}),
        }

    def _answers(self, items: Sequence[Item], task: Task) -> tuple[list[ReadItem], list[ItemAnswer]]:
        """The items as they were read and their answers, those of other batches than a probe's left out."""
        asked: list[Item | ReadItem] = [
            ReadItem(item, error=task.left_out[slot]) if slot in task.left_out else item
            for slot, item in enumerate(items)
        ]
        if task.probe is not None:
            asked = [each if slot in task.probe else _untried(each) for slot, each in enumerate(asked)]
        size = self.question.fixed.batch
        batches = [asked[first : first + size] for first in range(0, len(asked), size)]
        if task.probe is not None:
            batches = [batch for batch in batches if not all(isinstance(each, ReadItem) for each in batch)]
        masks = bool(self.question.metrics)
        read: list[ReadItem] = []
        answers: list[ItemAnswer] = []
        for batch in read_ahead(batches, self.source, self.question.model.preprocessing, masks, self.readers):
            answers += self._answering(batch)
            read += [
                ReadItem(each.item, None, each.error, each.sha256, each.size, each.box)  # without what takes memory
                for each in batch
            ]
        return read, answers


def _without_memory(answers: Sequence[ItemAnswer]) -> dict[int, str]:
    """The items of a shard that memory was too small for. Raises MemoryError where others fared no better."""
    found = {slot: each.error for slot, each in enumerate(answers) if each.error and each.error.startswith(MEMORY)}
    if found and all(each.error for each in answers):  # it may be short for a while only
        raise MemoryError(next(iter(found.values())))
    return found


def _untried(each: Item | ReadItem) -> ReadItem:
    return each if isinstance(each, ReadItem) else ReadItem(each, error="it is not tried now")


def _content(read: Sequence[ReadItem], answers: Sequence[ItemAnswer], question: BatchQuestion) -> ShardContent:
    """All that was found for the items of a shard."""
    firsts = [next(iter(answer.explanations.values()), None) for answer in answers]
    predicted = [_predicted(answer) for answer in answers]
    notes = {
        name: dict.fromkeys(key for answer in answers for key in _notes(answer, name)) for name in question.methods
    }
    return ShardContent(
        rows=[_row(*each) for each in zip(read, answers, firsts, strict=True)],
        maps={
            name: [answer.kept[name] if answer.explanations else None for answer in answers]
            for name in question.methods
        },
        notes={
            name: {
                key: [_notes(answer, name)[key][0] if answer.explanations else None for answer in answers]
                for key in keys
            }
            for name, keys in notes.items()
            if keys
        },
        metrics={
            name: {
                key: torch.tensor(
                    [answer.metrics.get(name, {}).get(key, float("nan")) for answer in answers], dtype=torch.float64
                )
                for key in question.metrics
            }
            for name in question.methods
            if question.metrics
        },
        target=torch.tensor(
            [NO_CLASS if each is None or each.target is None else int(each.target[0]) for each in firsts]
        ),
        score=torch.tensor([float("nan") if each is None else float(each.score[0]) for each in firsts]),
        probability=torch.tensor(
            [
                float("nan") if each is None or each.probability is None else float(each.probability[0])
                for each in firsts
            ]
        ),
        predicted=torch.tensor([index for index, _ in predicted]),
        predicted_probability=torch.tensor([share for _, share in predicted]),
        boxes=_boxes(firsts),
        input_shape=[None if each is None else torch.tensor(each.inputs.shape[1:]) for each in firsts],
        box=torch.tensor([each.box for each in read], dtype=torch.float64),
        size=torch.tensor([each.size for each in read]),
    )


def _unmeasured(answers: Sequence[ItemAnswer]) -> str | None:
    """Why a metric has no value of any item; None where each has one."""
    answered = [answer for answer in answers if not answer.error]
    values = [list(chain.from_iterable(by.values() for by in answer.metrics.values())) for answer in answered]
    never = any(all(math.isnan(value) for value in each) for each in zip(*values, strict=True))
    return answered[0].unmeasured if never else None


def _row(each: ReadItem, answer: ItemAnswer, first: Explanation | None) -> dict[str, Any]:
    told = {
        "id": each.item.id,
        "label": each.item.label,
        "status": "error" if answer.error else "ok",
        "error": None if answer.error is None else without_address(answer.error),
        "unmeasured": None if answer.unmeasured is None else without_address(answer.unmeasured),
        "sha256": each.sha256,
        "class": None if first is None or first.target is None else first.names()[0],
        "objective": None if first is None or first.target is not None else first.names()[0],
    }
    return {key: value for key, value in told.items() if value is not None}


def _notes(answer: ItemAnswer, name: str) -> Mapping[str, Tensor]:
    return answer.explanations[name].notes if answer.explanations else {}


def _boxes(firsts: Sequence[Explanation | None]) -> list[Tensor | None] | None:
    boxes = [None if each is None or each.boxes is None else each.boxes[0] for each in firsts]
    return boxes if any(each is not None for each in boxes) else None


def _predicted(answer: ItemAnswer) -> tuple[int, float]:
    """The class with the highest score, and its probability; what is not known is -2 and NaN."""
    nothing = NO_CLASS, float("nan")
    if not answer.explanations:
        return nothing
    told = answer.explanations.get(PREDICTED)
    if told is None:
        first = next(iter(answer.explanations.values()))
        share = float("nan") if first.probability is None else float(first.probability[0])
        return nothing if first.target is None else (int(first.target[0]), share)
    index, share = told.values.flatten().tolist()
    return int(index), share if share >= 0 else float("nan")


def _explanations(answers: Sequence[ItemAnswer], question: BatchQuestion) -> dict[str, dict[str, Any]]:
    """What is told of each method, beside its maps."""
    found = next((answer.explanations for answer in answers if answer.explanations), None)
    if found is None:
        return {name: {"recipe": without_address(repr(method))} for name, method in question.methods.items()}
    return {
        name: {
            "recipe": without_address(found[name].recipe),
            "renderer": found[name].renderer,
            "options": asdict(found[name].options),
            "computed_in": found[name].computed_in,
            "fine": found[name].fine,
            "input_dtype": str(found[name].inputs.dtype).removeprefix("torch."),
        }
        for name in question.methods
    }
