"""What the pages tell of methods, names and other libraries is what the code does; their pictures are drawn again."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cnnviz

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text()
OURS = [name for name in cnnviz.attributions if cnnviz.attributions.origin(name).startswith("cnnviz ")]


@pytest.fixture(autouse=True)
def _extensions_are_found(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What builds the pages is imported by its own name, and forgotten."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(DOCS))
    monkeypatch.syspath_prepend(str(DOCS / "_extensions"))
    yield
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").is_relative_to(DOCS):
            del sys.modules[name]


def test_every_attribution_is_of_one_family_and_has_a_formula() -> None:
    import facts
    from families import FAMILIES, IN_WORDS

    listed = [name for _, family in FAMILIES.values() for name in family]
    assert sorted(listed) == sorted(OURS)
    assert set(IN_WORDS) <= set(OURS)
    for name in OURS:
        assert facts.formula(name)
    assert facts.formula("grad_cam") == "over_channels(mean(gradient(layer)) * activation(layer))"


def test_claims_are_tests_that_exist() -> None:
    from claims import CLAIMS

    assert set(CLAIMS) == set(OURS)
    tests: dict[str, set[str]] = {}
    for sentence, test in {claim for claims in CLAIMS.values() for claim in claims}:
        assert re.fullmatch(r"[A-Z][^.]*(, with centred=True)?\.", sentence), sentence
        file, _, name = test.partition("::")
        if file not in tests:
            parsed = ast.parse((ROOT / file).read_text())
            tests[file] = {node.name for node in parsed.body if isinstance(node, ast.FunctionDef)}
        assert name in tests[file], test


def test_every_method_of_the_verdicts_is_known() -> None:
    import facts

    found = facts.verdicts()
    assert len(set(found) & set(OURS)) > 30
    assert "depends on the weights" in found["grad_cam"]
    assert "does not depend on the class" in found["eigen_cam"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("grad_cam", (1, 1)),
        ("eigen_cam", (1, 0)),  # which takes no gradient
        ("guided_grad_cam", (1, 2)),
        ("deeplift", (2, 1)),  # the input and the baseline
        ("score_cam", (96, 0)),  # a pass for each channel of the layer
        ("smoothgrad", (25, 25)),
    ],
)
def test_costs_of_the_page_are_counted(name: str, expected: tuple[int, int]) -> None:
    import json

    import passes

    told = json.loads(passes.FILE.read_text())
    assert set(told) == set(passes.counted())
    found = passes.cost(name)
    assert found == told[name]
    assert (found["passes"], found["backward"]) == expected


def test_costs_are_told_in_words() -> None:
    from passes import in_words

    assert in_words({"passes": 1, "backward": 1}) == "1 pass forward and backward"
    assert in_words({"passes": 1, "backward": 12}) == "1 pass forward, 12 backward"
    assert in_words({"passes": 4000, "backward": 0}) == "4,000 passes forward, none backward"


def test_the_pages_of_the_gallery_are_as_they_are_written(tmp_path: Path) -> None:
    import gallery_pages

    gallery_pages.write_pages(tmp_path)
    shown: set[str] = set()
    for name in ("gallery.md", "renderers.md"):
        text = (DOCS / name).read_text()
        assert text == (tmp_path / name).read_text(), f"write {name} anew: python docs/make_gallery.py"
        shown |= set(re.findall(r"\]\(gallery/([^)]+)\)", text))
        assert len(re.findall(r"^# ", re.sub(r"```.*?```", "", text, flags=re.S), re.M)) == 1
    assert shown == {file.name for file in (DOCS / "gallery").iterdir()}


def test_lines_of_the_gallery_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the bundled network, whose classes are others; the methods of few passes."""
    import gallery_pages
    from make_gallery import cat_and_cup

    monkeypatch.chdir(tmp_path)
    cat_and_cup().resize((48, 48)).save("cat-and-cup.png")
    names = {"cnnviz": cnnviz, "model": cnnviz.load_model("demo", size=48)}
    lines = re.findall(r"^`(cnnviz\.explain\([^`]+)`$", (DOCS / "gallery.md").read_text(), re.M)
    assert len(lines) == len(OURS) - len(gallery_pages.ELSEWHERE)
    for line in lines:
        if any(f'"{name}"' in line for name in ("grad_cam", "guided_backprop", "fullgrad", "eigen_cam")):
            eval(line.replace('"espresso"', '"star"'), names)
    assert Path("fullgrad.png").exists()


@pytest.mark.parametrize("name", ["grad_cam", "guided_backprop", "input_x_gradient"])
def test_pictures_of_the_gallery_are_drawn_again(name: str, assets: Path, tmp_path: Path) -> None:
    """Half a level of 255 on average, for sums in another order; the new picture is kept as a JPEG too."""
    import make_gallery

    model = cnnviz.load_model("squeezenet1_0", weights=assets / "models" / "squeezenet1_0-imagenet.pth")
    make_gallery.write(name, make_gallery.drawn(make_gallery.explained(model, name, None)), tmp_path)
    pictures = []
    for folder in (tmp_path, DOCS / "gallery"):
        with Image.open(folder / f"{name}.jpg") as file:
            pictures.append(np.asarray(file.convert("RGB")).astype(float))
    drawn, kept = pictures
    assert drawn.shape == kept.shape
    assert np.abs(drawn - kept).mean() < 0.5, f"{name} is not what the gallery shows: python docs/make_gallery.py"
    rows = np.abs(drawn[: len(drawn) // 2] - drawn[len(drawn) // 2 : len(drawn) // 2 * 2]).mean()
    assert rows > 2, "both classes look alike"


def test_the_reference_has_every_public_name() -> None:
    text = (DOCS / "api.md").read_text()
    listed = re.findall(r"\.\. cnnviz-api::\n\n((?:   .*\n)+)", text)
    names = " ".join(listed).split()
    values = [name for name in cnnviz.__all__ if not isinstance(getattr(cnnviz, name), ModuleType)]
    assert sorted(names) == sorted(values)
    packages = re.findall(r"\.\. cnnviz-package:: cnnviz\.(\w+)", text)
    assert sorted(packages) == sorted(set(cnnviz.__all__) - set(values))


def test_times_beside_peers_are_those_of_the_page_of_speed() -> None:
    speed = (DOCS / "speed.md").read_text().partition("### Time relative to the peer")[2].partition("### Time in")[0]
    means = {
        (row[0], row[1]): row[2] for row in re.findall(r"^\| ([^|]+) \| ([^|]+) \|.*\*\*(.+)\*\* \|$", speed, re.M)
    }
    methods = {
        "Grad-CAM": "grad_cam",
        "gradient (saliency)": "gradient",
        "Guided Grad-CAM": "guided_grad_cam",
        "integrated gradients, 50 steps": "integrated_gradients",
        "SmoothGrad, 25 samples": "smoothgrad",
        "occlusion": "occlusion",
        "Ablation-CAM": "ablation_cam",
    }
    table = README.partition("| time of cnnviz divided by")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    assert [row[0] for row in rows] == list(methods)
    for name, *cells in rows:
        for peer, cell in zip(("captum", "grad-cam", "torchcam"), cells, strict=True):
            assert cell == means.get((methods[name], peer), ""), (name, peer)


def test_the_three_lines_of_the_readme_run(assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a network whose weights are here."""
    from make_gallery import cat_and_cup

    monkeypatch.chdir(tmp_path)
    cat_and_cup().save("cat.jpg")
    (block,) = re.findall(r"^```python\n(import cnnviz\n\nmodel = .*?)^```$", README, re.M | re.S)
    weights = str(assets / "models" / "squeezenet1_0-imagenet.pth")
    code = block.replace('"resnet50"', f'"squeezenet1_0", weights={weights!r}')
    assert code != block
    assert len([line for line in block.splitlines() if line]) == 3
    exec(compile(code, "README.md", "exec"), {})
    with Image.open("cat.png") as drawn:
        assert drawn.size == (448, 448)


def test_the_citation_is_of_this_version() -> None:
    yaml: Any = pytest.importorskip("yaml", reason="the citation is read by PyYAML, which is not installed")
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert cited["cff-version"] == "1.2.0"
    assert cited["type"] == "software"
    assert (cited["title"], str(cited["version"]), cited["license"]) == (
        project["name"],
        project["version"],
        project["license"],
    )
    assert cited["message"]
    assert all(set(author) & {"name", "family-names"} for author in cited["authors"])
