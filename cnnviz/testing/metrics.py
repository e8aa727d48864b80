"""What a metric owes: one number for each input, whatever is beside it, and everything left as it was."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from cnnviz import Explanation, Metric, evaluate, explain, gradient, metrics
from cnnviz.registry.registry import Method
from cnnviz.testing.nets import SmallNet
from cnnviz.testing.state_snapshot import state
from cnnviz.testing.subject import built, close, equal


def check_metric(method: str | Metric | Method[Any], **settings: Any) -> None:
    """Check a metric on signals, images and volumes, with annotations and a small network to ask.

    Checked is that it gives one finite number for each input, (N,), or refuses in one line (ValueError); that an input
    alone scores as in a batch, and one explanation twice the same; that scores depend on the values; that a blank map
    and half precision are scored or refused in one line, and so are an explanation without masks and without a model;
    that it changes neither the explanation, the masks, the model nor torch's own state; and that it refuses settings it
    does not have.

    Args:
        method: a registered name, a method, or what a method makes of its settings: a callable of a trial.
        settings: what the method is built with.

    Raises:
        AssertionError: naming what is broken.
    """
    name, score = built(metrics, method, settings)
    scored, depends = 0, False
    for model, explained, masks in _explained():
        what = f"inputs {tuple(explained.inputs.shape)}"
        found = _scores(name, score, explained, masks, model, what)
        if found is None:
            continue
        scored += 1
        again = _scores(name, score, explained, masks, model, what)
        if again is None or not close(again, found):
            raise AssertionError(f"{name} scores one explanation in two ways; draw from trial.run.generator")
        for item in range(len(explained)):
            alone = _scores(name, score, explained[item], masks[item][None], model, f"{what}, one alone")
            if alone is None or not close(alone, found[item][None]):
                raise AssertionError(f"{name} gives another score for an input alone than in a batch")
        shapes = [places[:, None].expand_as(explained.values).float() for places in (masks, ~masks, masks | ~masks)]
        scores = [_scores(name, score, replace(explained, values=each), masks, model, what) for each in shapes]
        depends |= not all(each is not None and close(each, found) for each in scores)
        blank = replace(explained, values=torch.zeros_like(explained.values))
        _scores(name, score, blank, masks, model, f"{what}, a blank map")
        _scores(name, score, replace(explained, values=explained.values.bfloat16()), masks, model, "bfloat16 values")
        _scores(name, score, explained, None, model, "no masks")
        _scores(name, score, explained, masks, None, "no model")
    if not scored:
        raise AssertionError(f"{name} refuses everything: signals, images and volumes")
    if not depends:
        raise AssertionError(f"{name} gives the same score whatever the values")


def _explained() -> Iterator[tuple[SmallNet, Explanation, Tensor]]:
    """A network, three inputs explained, and where their evidence is said to be; of every rank."""
    for rank, size in ((1, (22,)), (2, (14, 22)), (3, (6, 10, 14))):
        model = SmallNet(rank)
        inputs = torch.randn(3, 3, *size, generator=torch.Generator().manual_seed(5))
        explained = explain(model, inputs, gradient(), target=torch.tensor([0, 1, 2]))
        masks = torch.zeros(3, *size, dtype=torch.bool)
        for item, mask in enumerate(masks):
            mask[tuple(slice(item, item + length // 2) for length in size)] = True
        yield model, explained, masks


def _scores(
    name: str, score: Metric, explained: Explanation, masks: Tensor | None, model: SmallNet | None, what: str
) -> Tensor | None:
    """What the metric gives; None where it refuses as it should."""
    asked = model if model is not None else SmallNet(explained.inputs.ndim - 2)
    watched = masks if masks is not None else torch.zeros(())
    before, kept = state(asked, explained.inputs), (explained.values.clone(), watched.clone())
    try:
        found = evaluate(explained, score, masks=masks, model=model)
    except ValueError as error:
        if not str(error) or "\n" in str(error):
            raise AssertionError(f"{name} refuses {what} without saying why in one line: {error!r}") from error
        if "a metric gives" in str(error) or "not finite" in str(error):  # said of what it gave, not by it
            raise AssertionError(f"{name} on {what}: {error}") from error
        found = None
    except Exception as error:
        raise AssertionError(f"{name} fails on {what}: {type(error).__name__}: {error}") from error
    after = state(asked, explained.inputs)
    for trace, old in before.items():
        if not equal(old, after.get(trace)):
            raise AssertionError(f"{name} {trace}")
    for trace, old, new in (("values", kept[0], explained.values), ("masks", kept[1], watched)):
        if not torch.equal(old, new):
            raise AssertionError(f"{name} writes into the {trace}")
    return found
