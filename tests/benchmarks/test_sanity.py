"""The benchmark of what maps can be trusted for: what it claims of small runs, and what it keeps and says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import networks, records
from benchmarks.sanity import __main__ as command
from benchmarks.sanity import page, subjects
from benchmarks.sanity.rows import FILE, SANITY
from cnnviz import demo, explain
from cnnviz.testing.sanity import blind, rows
from cnnviz.testing.sanity.verdicts import verdict


def run(*arguments: str | Path) -> int:
    return int(command.main([str(each) for each in arguments]))


def kept(path: Path) -> Any:
    return records.read(path, SANITY)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run of three parts on the bundled networks."""
    out = tmp_path_factory.mktemp("sanity") / "sanity.json"
    names = ["random", "centre blob", "edges", "grad_cam", "guided_backprop", "layer_cam", "activation"]
    parts = ["--parts", "object", "tag", "weights", "--networks", "demo", "demo-shortcut", "--threads", "1"]
    assert run(*parts, "--methods", *names, "layer_cam at layer1", "--drawn", "8", "--out", out) == 0
    return out


def test_the_object_is_found_by_grad_cam_and_no_blind_map(measured: Path) -> None:
    results = kept(measured)
    blind = max(rows.mean(rows.values(results, each, "mass_inside")) for each in ("random", "centre blob", "edges"))
    assert min(rows.mean(rows.values(results, each, "mass_inside")) for each in ("grad_cam", "layer_cam")) > 1.3 * blind
    assert "finds the object" in verdict(results, "grad_cam")
    assert not {"finds the object", "points at the object"} & set(verdict(results, "centre blob"))


def test_the_tag_holds_most_of_what_layer_cam_shows_at_a_fine_layer(measured: Path) -> None:
    results = kept(measured)
    assert rows.mean(rows.values(results, "layer_cam at layer1", "on_tag")) > 0.6
    assert "finds the tag" in verdict(results, "layer_cam at layer1")
    assert "half finds the tag" in verdict(results, "layer_cam")


def test_random_weights_separate_edges_guided_backprop_and_grad_cam(measured: Path) -> None:
    results = kept(measured)
    assert verdict(results, "edges") == ["does not depend on the weights"]
    assert "hardly heeds the upper layers" in verdict(results, "guided_backprop")
    assert "depends on the weights" in verdict(results, "grad_cam")
    assert verdict(results, "random") == []


def test_what_has_no_one_map_is_left_out_with_the_reason(measured: Path) -> None:
    (first, *_) = kept(measured).left_out
    assert first.method == "activation"
    assert first.reason.startswith("activation(layer='layer3') has 96 maps for each input, which are no one map")


def test_a_page_tells_verdicts_figures_and_how_they_came(measured: Path, tmp_path: Path) -> None:
    assert page.main(["--results", str(measured), "--docs", str(tmp_path)]) == 0
    text = (tmp_path / "sanity.md").read_text()
    assert "| (edges) | does not depend on the weights |" in text
    assert "| map | ROC area | on the shape | peak on it | IoU | on the tag |" in text
    assert "python -m benchmarks.sanity --parts object tag weights" in text
    assert "- activation, object of demo, " in text
    assert "sanity.jpg" not in text  # of which there is none


def test_rows_are_added_and_kept_when_it_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sanity.json"
    few = ["--parts", "object", "--networks", "demo", "--drawn", "4", "--threads", "1", "--out", out]
    assert run(*few, "--methods", "edges") == 0
    measure = command.row

    def interrupted(case: Any, method: str, *rest: Any) -> Any:
        if method == "gradient":
            raise KeyboardInterrupt
        return measure(case, method, *rest)

    monkeypatch.setattr(command, "row", interrupted)
    assert run(*few, "--methods", "grad_cam", "gradient", "--add") == 130
    assert "interrupted; 2 rows are in" in capsys.readouterr().err
    assert [row.method for row in kept(out).rows] == ["edges", "grad_cam"]
    assert len(kept(out).commands) == 2


def test_a_row_ends_with_its_time_and_takes_one_picture_at_least(tmp_path: Path) -> None:
    out = tmp_path / "sanity.json"
    few = ["--parts", "object", "--networks", "demo", "--drawn", "12", "--threads", "1", "--out", out]
    assert run(*few, "--methods", "edges", "--most", "1e-9") == 0
    (row,) = kept(out).rows
    assert len(row.figures["roc_auc"]) == 4  # drawn ones come together


def test_results_that_cannot_be_read_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "sanity.json"
    assert page.main(["--results", str(out), "--docs", str(tmp_path)]) == 2
    assert "is not there; make it with python -m benchmarks.sanity" in capsys.readouterr().err
    for text in ("{", '{"rows": [{}]}', json.dumps({"about": {}, "commands": [], "rows": [1], "left_out": []})):
        out.write_text(text)
        assert page.main(["--results", str(out), "--docs", str(tmp_path)]) == 2
        told = capsys.readouterr().err
        assert "can't be read as results (" in told
        assert told.count("\n") == 1
        assert run("--parts", "tag", "--methods", "edges", "--out", out, "--add") == 2
        assert "can't be read as results (" in capsys.readouterr().err


def test_missing_photographs_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "ASSETS", tmp_path)
    out = tmp_path / "sanity.json"
    assert run("--parts", "photographs", "--methods", "edges", "--out", out) == 1
    assert all("has not what" in each.reason for each in kept(out).left_out)
    assert len(kept(out).left_out) == 2


def test_blind_maps_know_only_the_picture() -> None:
    inputs = demo.as_inputs(demo.pictures().pictures[:2])
    maps = blind.blind_maps(inputs)
    assert maps["centre blob"].flatten(1).argmax(1).tolist() in ([47 * 96 + 47] * 2, [48 * 96 + 48] * 2)
    flat = blind.blind_maps(torch.ones(1, 3, 12, 12))
    assert float(flat["edges"].abs().max()) == 0
    answer = explain(demo.network("demo"), inputs, blind.blind("edges"))
    torch.testing.assert_close(answer.values[:, 0], maps["edges"])
    chance = blind.blind("random")
    again = [explain(demo.network(name), inputs, chance).values for name in ("demo", "demo", "demo-shortcut")]
    assert torch.equal(again[0], again[1])
    assert not torch.equal(again[0], again[2])


def test_a_mean_and_its_error_by_hand() -> None:
    assert rows.mean([1.0, 2.0, 6.0]) == 3
    assert rows.mean([]) is None
    assert rows.error_of_mean([1.0, 2.0, 6.0]) == pytest.approx((7 / 3) ** 0.5)  # the variance is 14 / 2
    assert rows.error_of_mean([1.0]) == float("inf")


def test_the_page_in_the_documentation_is_made_of_the_results_beside_it() -> None:
    assert page.page(kept(FILE), drawn=True) == (records.DOCS / "sanity.md").read_text()


def test_what_is_added_elsewhere_is_told_beside_what_was_there(tmp_path: Path) -> None:
    out = tmp_path / "sanity.json"
    few = ["--parts", "object", "--networks", "demo", "--drawn", "4", "--threads", "1", "--out", out]
    assert run(*few, "--methods", "edges") == 0
    content = json.loads(out.read_text())
    content["about"] |= {"date": "2020-02-02", "versions": {"cnnviz": "0.0.1"}}
    out.write_text(json.dumps(content))
    for method in ("random", "centre blob"):
        assert run(*few, "--methods", method, "--add") == 0
    told = kept(out).where()
    assert re.fullmatch(r".*cnnviz 0\.0\.1; 2020-02-02: `[^`]* --methods edges`\. Added on .*`; `.*", told)
    assert told.count(". Added on ") == 1
    assert told.rpartition("--methods ")[2] == "centre blob --add`"


def test_attention_is_asked_of_the_transformer_alone() -> None:
    assert subjects.asked("legrad", "object", demo.TRANSFORMER)
    assert not subjects.asked("legrad", "object", "demo")
    assert not subjects.asked("grad_cam", "object", demo.TRANSFORMER)
    assert subjects.asked("random", "weights", demo.TRANSFORMER)
