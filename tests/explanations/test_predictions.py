"""What a model says of pictures, against softmax and sigmoid by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from cnnviz import LoadedModel, Preprocessing, demo, load_model
from cnnviz.models import Prediction


def with_head(*head: nn.Module, names: tuple[str, ...] | None = None) -> LoadedModel:
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), *head).eval()
    return LoadedModel("mine", net, Preprocessing((0.5,) * 3, (0.5,) * 3), names)


def test_the_highest_classes_with_score_and_probability() -> None:
    model = load_model("demo")
    inputs = demo.as_inputs(demo.pictures().pictures)[:3]
    scores = model.module(inputs).detach()
    shares = scores.softmax(1)
    found = model.predict(inputs, top=3)
    assert [len(row) for row in found] == [3, 3, 3]
    for item, row in enumerate(found):
        by_score = sorted(range(8), key=lambda index: -float(scores[item, index]))[:3]
        assert [each.index for each in row] == by_score
        assert [each.name for each in row] == [model.categories[index] for index in by_score]
        assert [each.score for each in row] == pytest.approx(scores[item, by_score].tolist(), abs=1e-5)
        assert [each.probability for each in row] == pytest.approx(shares[item, by_score].tolist(), abs=1e-6)


def test_pictures_are_prepared(tmp_path: Path) -> None:
    model = load_model("demo")
    path = tmp_path / "star.png"
    picture = Image.fromarray(demo.pictures().pictures[3])
    picture.save(path)
    inputs = model.preprocessing(picture)[None]
    expected = model.predict(inputs)
    assert model.predict(path) == expected
    for row in model.predict([str(path), picture]):
        assert [each.index for each in row] == [each.index for each in expected[0]]
        assert [each.score for each in row] == pytest.approx([each.score for each in expected[0]], abs=1e-4)


def test_one_forward_pass_serves_all_classes() -> None:
    model, passes = load_model("demo"), []
    model.module.register_forward_hook(lambda *_: passes.append(1))
    model.predict(torch.rand(2, 3, 48, 48), top=8)
    assert len(passes) == 1


HEADS: dict[str, tuple[list[nn.Module], tuple[str, ...] | None, list[int], list[str | None], list[float | None]]] = {
    # scores of the mean colours 0.25, 0.5, 1.0
    "logits": ([], None, [2, 1, 0], [None] * 3, torch.tensor([1.0, 0.5, 0.25]).softmax(0).tolist()),
    "a softmax": ([nn.Softmax(1)], None, [2, 1, 0], [None] * 3, torch.tensor([1.0, 0.5, 0.25]).softmax(0).tolist()),
    "a sigmoid": (
        [nn.Sigmoid()],
        tuple("abc"),
        [2, 1, 0],
        ["c", "b", "a"],
        torch.tensor([1, 0.5, 0.25]).sigmoid().tolist(),
    ),
}


@pytest.mark.parametrize("head", HEADS)
def test_a_probability_is_right_whatever_the_model_ends_in(head: str) -> None:
    layers, names, indices, called, shares = HEADS[head]
    inputs = torch.tensor([0.25, 0.5, 1.0]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    (row,) = with_head(*layers, names=names).predict(inputs)
    assert [each.index for each in row] == indices
    assert [each.name for each in row] == called
    assert [each.probability for each in row] == pytest.approx(shares)


def test_a_single_score_of_two_named_classes() -> None:
    head = nn.Linear(3, 1)
    with torch.no_grad():
        head.weight.fill_(1.0)
        head.bias.fill_(-5.0)  # the score of ones is -2: the first class
    (row,) = with_head(head, names=("cat", "dog")).predict(torch.ones(1, 3, 4, 4))
    assert [(each.index, each.name) for each in row] == [(0, "cat")]
    assert row[0].probability == pytest.approx(1 / (1 + 2.718281828**-2.0), abs=1e-5)


def test_a_value_has_no_probability() -> None:
    (row,) = with_head(nn.Linear(3, 1), nn.Flatten(0)).predict(torch.ones(1, 3, 4, 4))
    assert [each.probability for each in row] == [None]


def test_it_prints_as_it_is_read() -> None:
    assert repr(Prediction(282, "tiger cat", 11.731, 0.6214)) == "<282 tiger cat 11.73 (62.1 %)>"
    assert repr(Prediction(7, None, 0.5, None)) == "<7 class 7 0.50>"


@pytest.mark.parametrize("top", [0, -1, True, 2.0])
def test_a_top_that_can_not_be(top: int) -> None:
    with pytest.raises(ValueError, match="classes can't be; ask for 1 or more"):
        load_model("demo").predict(torch.rand(1, 3, 48, 48), top=top)


def test_a_model_in_training_mode_is_refused() -> None:
    model = load_model("demo")
    model = replace(model, module=model.module.train())
    with pytest.raises(ValueError, match="training mode"):
        model.predict(torch.rand(1, 3, 48, 48))


def test_a_data_loader_is_predicted_batch_after_batch() -> None:
    inputs = torch.randn(5, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    model = load_model("demo")
    loader = DataLoader(TensorDataset(inputs, torch.arange(5)), batch_size=2)
    found, alone = model.predict(loader, top=2), model.predict(inputs, top=2)
    assert [[each.index for each in row] for row in found] == [[each.index for each in row] for row in alone]
    assert [row[0].score for row in found] == pytest.approx([row[0].score for row in alone], abs=1e-4)
