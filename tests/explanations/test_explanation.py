"""Explanations that are kept in a file."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import safetensors
import torch
from nets import AveragingNet, tiny_inputs
from safetensors.torch import save_file

from cnnviz import Explanation, explain


def test_options_are_kept_with_the_values(tmp_path: Path) -> None:
    answer = explain(AveragingNet(), tiny_inputs(), "gradient", target=1, seed=7, memory=10**6)
    (file,) = answer.save(tmp_path / "kept.safetensors")
    assert Explanation.load(file).options == answer.options
    assert (answer.options.seed, answer.options.memory) == (7, 10**6)


def test_a_note_that_shares_memory_with_the_score_is_kept(tmp_path: Path) -> None:
    answer = explain(AveragingNet(), tiny_inputs(), "saliency_confusion")  # whose prediction's score is the score
    assert answer.notes["prediction_score"].data_ptr() == answer.score.data_ptr()
    (file,) = answer.save(tmp_path / "kept.safetensors")
    loaded = Explanation.load(file)
    torch.testing.assert_close(loaded.notes["prediction_score"], answer.score, rtol=0, atol=0)
    torch.testing.assert_close(loaded.values, answer.values, rtol=0, atol=0)


def test_a_file_of_an_older_version_has_default_options(tmp_path: Path) -> None:
    answer = explain(AveragingNet(), tiny_inputs(), "gradient", target=1)
    (file,) = answer.save(tmp_path / "kept.safetensors")
    with safetensors.safe_open(file, framework="pt") as kept:
        tensors, about = {name: kept.get_tensor(name) for name in kept.keys()}, json.loads(kept.metadata()["cnnviz"])  # noqa: SIM118, not a mapping
    del about["options"]
    save_file(tensors, file, {"cnnviz": json.dumps(about)})
    loaded = Explanation.load(file)
    torch.testing.assert_close(loaded.values, answer.values, rtol=0, atol=0)
    assert loaded.options == answer.options


def test_explanations_are_pickled_without_what_computed_them() -> None:
    for attribution in ("occlusion", lambda run: run.inputs * 2):
        explanation = explain(AveragingNet(), tiny_inputs(), attribution, target=1)
        read = pickle.loads(pickle.dumps(explanation))
        assert torch.equal(read.values, explanation.values)
        assert read.options == explanation.options
        assert read.attribution is None
        assert explanation.attribution is not None
