"""One method of ours beside one peer: which pairs are compared, what is left out, and the row that is measured."""

from __future__ import annotations

import contextlib
import copy
import io
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

import cnnviz
from benchmarks import command
from benchmarks.networks import CLASSIFIERS, network, pictures
from benchmarks.speed.peers import METHODS, Peer, Question, resolved
from benchmarks.speed.rows import LeftOut, Row
from benchmarks.speed.timing import in_turns, room_for, timed

OURS = "cnnviz"
SEVEN = (
    *("grad_cam", "grad_cam_plus_plus", "xgrad_cam", "hires_cam", "layer_cam"),
    *("eigen_cam", "eigen_grad_cam"),
)
TOGETHER = "seven CAMs together"
HALVED = ("grad_cam", "gradient", "guided_backprop", "integrated_gradients", "smoothgrad", "occlusion")
"""What is also measured in bfloat16."""
COUNTS = ("steps", "samples", "masks", "draws", "permutations", "channels")
"""Settings that say how often a method asks the network."""


class Options(command.Options):
    """What is measured, and how."""

    methods: list[str]
    networks: list[str]
    batches: list[int]
    peers: list[str]
    size: int
    repeats: int
    time_limit: float
    process_time: bool


@dataclass(frozen=True)
class Pair:
    """What is asked of us, and what of the other."""

    method: str
    peer: str
    ours: Callable[[Question], Tensor]
    theirs: Peer | None = None


Request = tuple[str, str, int]
"""A method, a peer, a batch."""


class Failed(Exception):
    """One of the two could not answer; says which, and why."""


def pairs(library: str, methods: Sequence[str]) -> Iterator[Pair]:
    """All that is compared with one library; beside ourselves what is of our own, and what nobody else has."""
    known = cnnviz.attributions
    if library != OURS:
        for method in methods:
            for peer in METHODS.get(method, ()):
                if peer.library == library and method in known:
                    yield Pair(method, library, partial(explained, method, peer.settings), peer)
        return
    if TOGETHER in methods:
        grad_cam = Peer(OURS, partial(explained, "grad_cam", {}), differs=lambda question: "seven maps, and one")
        yield Pair(TOGETHER, "cnnviz grad_cam", seven_cams, grad_cam)
    for method in HALVED:
        if method in methods and method in known:
            first = METHODS[method][0]
            whole = Peer(OURS, partial(explained, method, first.settings), passes=first.passes)
            ours = partial(explained, method, {**first.settings, "precision": "bfloat16"})
            yield Pair(f"{method} in bfloat16", "cnnviz float32", ours, whole)
    for method in methods:
        if method in known and method not in METHODS:
            yield Pair(method, "", partial(explained, method, {}))


def explained(method: str, settings: Mapping[str, Any], question: Question) -> Tensor:
    """Our map, by the call that any user would write."""
    options = resolved(settings, question)
    if "layer" in cnnviz.attributions[method].settings:
        options.setdefault("layer", question.network.layer)
    model, inputs = question.network.module, question.inputs
    answer: cnnviz.Explanation = cnnviz.explain(model, inputs, method, target=question.target, **options)
    return answer.values


def seven_cams(question: Question) -> Tensor:
    layer = question.network.layer
    cams = cnnviz.explain(question.network.module, question.inputs, SEVEN, target=question.target, layer=layer)
    return torch.cat([cam.values for cam in cams.values()], 1)


def rows(library: str, name: str, options: Options, requests: list[Request]) -> Iterator[Row | LeftOut]:
    """The requests, measured beside one library on one network."""
    device = torch.device(options.device)
    net = network(name, device)
    for batch in dict.fromkeys(batch for *_, batch in requests):
        inputs = pictures(batch, options.size).to(device)
        with torch.inference_mode():
            predicted = net.module(inputs).argmax(1).tolist()
        question = Question(net, inputs, torch.tensor(predicted, device=device))
        took = statistics.median(timed(partial(forward, question), device)[0] for _ in range(3))
        for pair in pairs(library, options.methods):
            if (pair.method, pair.peer, batch) not in requests:
                continue
            left_out = partial(LeftOut, pair.method, pair.peer, name, batch)
            reason = hindrance(pair, question, took, options.time_limit)
            if reason:
                yield left_out(reason)
                continue
            try:
                yield row(pair, question, took, options)
            except Failed as error:
                yield left_out(str(error))


def hindrance(pair: Pair, question: Question, forward_time: float, time_limit: float) -> str:
    """Why this is not measured, if it is not."""
    if pair.method == "cam" and question.network.name not in CLASSIFIERS:
        return "the network does not end in global average pooling and a linear layer"
    most = pair.theirs.most if pair.theirs else None
    if most is not None and len(question.inputs) > most:
        return f"{pair.peer} answers {most} at a time"
    expected = passes(pair, question) * forward_time
    if pair.theirs is not None and not pair.theirs.in_parts:
        copies, at_once = pair.theirs.copies * len(question.inputs), fitting(question)
        if copies > at_once:
            return f"{pair.peer} evaluates {copies} inputs at once, and memory holds {at_once}"
    if expected > time_limit:
        return f"about {expected:.0f} s a run, over the limit of {time_limit:.0f} s"
    return ""


def passes(pair: Pair, question: Question) -> float:
    """About how many forward passes the slower of the two takes."""
    if pair.theirs is not None:
        return pair.theirs.passes(question)
    settings = cnnviz.attributions[pair.method].settings
    counts = [settings[name].default for name in COUNTS if name in settings]
    return 3.0 * max([1, *(count for count in counts if isinstance(count, int))])


def row(pair: Pair, question: Question, forward_time: float, options: Options) -> Row:
    """Raises Failed where one of them can't answer."""
    works = {OURS: partial(answered, OURS, pair.ours, question), "forward": partial(forward, question)}
    copied, remark = question, ""
    if pair.theirs is not None:
        # some peers change the network for good
        copied = replace(question, network=replace(question.network, module=copy.deepcopy(question.network.module)))
        at_once = fitting(question) if pair.theirs.copies > 1 else 1
        if pair.theirs.copies * len(question.inputs) > at_once > 1:
            copied = replace(copied, batch=at_once)
            remark = f"{pair.peer}: {at_once} inputs at once, as memory allows; "
        works["theirs"] = partial(answered, pair.peer, pair.theirs.ask, copied)
    measured = in_turns(
        works,
        options.repeats,
        question.inputs.device,
        expected=passes(pair, question) * forward_time,
        process_time=options.process_time,
        clean=copied.network.module.zero_grad,
    )
    cosine = difference = None
    if pair.theirs is not None:
        reason = pair.theirs.differs(question)
        if reason:
            remark += f"maps not compared: {reason}"
        else:
            converted = pair.theirs.alike(measured[OURS].result)
            cosine, difference = agreement(converted, measured["theirs"].result, pair.theirs.signless)
            remark += "" if cosine is not None else f"maps not compared: one of {pair.peer} is empty"
    theirs = measured.get("theirs")
    return Row(
        method=pair.method,
        peer=pair.peer,
        network=question.network.name,
        trained=question.network.trained,
        batch=len(question.inputs),
        size=question.inputs.shape[-1],
        forward=measured["forward"].seconds,
        ours=measured[OURS].seconds,
        theirs=theirs.seconds if theirs else [],
        ours_peak=measured[OURS].peak,
        theirs_peak=theirs.peak if theirs else None,
        cosine=cosine,
        difference=difference,
        remark=remark.removesuffix("; "),
    )


def fitting(question: Question) -> int:
    return room_for(question.network.module, question.inputs[:1])


def forward(question: Question) -> Tensor:
    with torch.inference_mode():
        scores: Tensor = question.network.module(question.inputs)
    return scores


def answered(name: str, ask: Callable[[Question], Tensor], question: Question) -> Tensor:
    """Without what some of them print. Raises Failed."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return ask(question)
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "")
        raise Failed(f"{name} failed: {type(error).__name__}: {reason}") from error


def agreement(ours: Tensor, theirs: Tensor, signless: bool = False) -> tuple[float | None, float | None]:
    """The lowest cosine, and the largest difference relative to the peer's peak, of a batch; None for empty maps."""
    mine, other = (maps.detach().cpu().double().reshape(len(maps), -1) for maps in (ours, theirs))
    if mine.shape != other.shape:
        raise Failed(f"the maps are {tuple(ours.shape)} and {tuple(theirs.shape)}, and can't be compared")
    peaks = other.abs().amax(1, keepdim=True)
    if not bool((peaks > 0).all()):
        return None, None
    if signless:
        mine = mine * (mine * other).sum(1, keepdim=True).sign()
    cosine = torch.cosine_similarity(mine, other, dim=1).min()
    return float(cosine), float(((mine - other).abs() / peaks).max())
