"""An audit finds what is in the maps, with numbers that closed forms and loops give too, and nothing in honest maps."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import adjusted_rand_score

import cnnviz
from cnnviz import demo
from cnnviz.datasets import Audit, Batch, audit, audit_maps
from cnnviz.datasets.findings.heat_shares import groups, regions, shares, unit_maps
from cnnviz.datasets.findings.map_clusters import cluster_maps, typical_and_strange
from cnnviz.datasets.findings.repeated_places import binomial_tail, fisher_tail, hot_cells, repeated_places
from cnnviz.demo.drawing import draw

ROW, COLUMN = np.mgrid[:16, :16] + 0.5
Floats = NDArray[np.float64]


def blobs(rows: Floats, columns: Floats, width: float = 1.5) -> Floats:
    """Maps (n, 16, 16), each with heat around one place."""
    squares = (ROW - rows[:, None, None]) ** 2 + (COLUMN - columns[:, None, None]) ** 2
    return np.exp(-squares / (2 * width**2))


def wandering(count: int, seed: int = 0) -> Floats:
    """Maps of a network that looks at an object, which may be anywhere around the middle."""
    rng = np.random.default_rng(seed)
    return blobs(*rng.triangular(3, 8, 13, (2, count)), width=2.5) + 0.1 * rng.random((count, 16, 16))


def at_corner(count: int, seed: int = 1) -> Floats:
    """Maps of a network that looks at the top right corner."""
    rng = np.random.default_rng(seed)
    return blobs(rng.normal(2, 0.3, count), rng.normal(14, 0.3, count)) + 0.05 * rng.random((count, 16, 16))


def named(audited: Audit) -> set[str]:
    return {each.place for each in audited.clusters if each.is_finding and each.is_one_place}


# Where heat lies


def test_regions_are_the_picture_once() -> None:
    masks = regions()
    assert (sum(masks.values()) == 1).all()
    sizes = {name: float(mask.mean()) for name, mask in groups().items()}
    assert sizes["centre"] == sizes["corners"] == 0.25
    assert sizes["edges"] == 0.5
    assert sizes["top left corner"] == 1 / 16
    assert sizes["left edge"] == 1 / 8
    assert masks["top right corner"][0, 15] == masks["bottom edge"][15, 8] == masks["centre"][8, 8] == 1


def test_shares_of_heat_are_those_of_the_cells() -> None:
    heat = np.zeros((3, 16, 16))
    heat[0, 0, 0], heat[0, 8, 8] = 3, 1  # three quarters in a corner
    heat[1] = 5  # uniform
    heat[1, 15, 8] = -7  # speaks against it, and is no heat
    maps = unit_maps(heat)
    told = {(row["class"], row["region"]): row for row in audit_maps(heat, ["a", "b", "b"]).regions}
    assert told["a", "top left corner"]["share"] == 0.75
    assert told["a", "top left corner"]["times"] == 12
    assert told["b", "centre"]["share"] == pytest.approx(64 / 255)
    assert told["b", "centre"]["pictures"] == 1
    assert told["b", "bottom edge"]["share"] == pytest.approx(31 / 255)
    assert told["all pictures", "corners"]["share"] == pytest.approx((0.75 + 64 / 255) / 2)
    assert shares(maps, np.ones((16, 16))).tolist() == pytest.approx([1, 1, 0])


def test_huge_and_tiny_maps_have_the_same_shares() -> None:
    heat = wandering(2)
    for scale in (1e-300, 1e-30, 1e30, 1e300):
        assert np.allclose(unit_maps(heat * scale), unit_maps(heat))


def test_heat_inside_of_masks_is_a_loop_over_cells() -> None:
    rng = np.random.default_rng(3)
    heat, masks = rng.random((4, 16, 16)), rng.random((4, 16, 16))
    masked = np.array([True, True, True, False])
    audited = audit_maps(heat, ["a", "a", "b", "b"], masks=masks, masked=masked)
    by_hand = [
        sum(heat[n, r, c] * masks[n, r, c] for r, c in product(range(16), repeat=2)) / heat[n].sum() for n in range(3)
    ]
    told = {row["class"]: row for row in audited.inside}
    assert told["a"]["share"] == pytest.approx(np.mean(by_hand[:2]), rel=1e-5)
    assert told["b"]["share"] == pytest.approx(by_hand[2], rel=1e-5)
    assert told["b"]["pictures"] == 1
    assert told["all pictures"]["uniform"] == pytest.approx(masks[:3].mean())


# Repeated places


def test_probabilities_are_sums_over_all_cases() -> None:
    for n, p in ((5, 0.3), (7, 0.01)):
        for k in range(n + 1):
            exact = sum(math.comb(n, x) * p**x * (1 - p) ** (n - x) for x in range(k, n + 1))
            assert binomial_tail(k, n, p) == pytest.approx(exact)
    for everyone, hot, of in ((9, 4, 5), (6, 6, 2)):
        for k in range(of + 1):
            ways = sum(math.comb(hot, x) * math.comb(everyone - hot, of - x) for x in range(k, min(of, hot) + 1))
            assert fisher_tail(k, of, hot, everyone) == pytest.approx(ways / math.comb(everyone, of))


def test_hot_cells_are_the_hottest_sixteenth() -> None:
    maps = unit_maps(wandering(5))
    for each, hot in zip(maps, hot_cells(maps), strict=True):
        assert sorted(each[hot]) == sorted(each.ravel())[-16:]


def test_cells_as_hot_as_others_that_are_not_are_not_hot() -> None:
    """Else the first cells of a uniform map would be, and the top of all pictures a place."""
    heat = np.zeros((3, 16, 16))
    heat[0] = 1
    heat[1, 5:9, 5:10] = 1  # 20 equal cells
    heat[2, 5:9, 5:8] = 1  # 12
    assert hot_cells(unit_maps(heat)).sum((1, 2)).tolist() == [0, 0, 12]


def test_a_class_of_wider_maps_is_no_finding() -> None:
    rng = np.random.default_rng(2)
    wide, narrow = (blobs(*rng.triangular(3, 8, 13, (2, 200)), width=width) for width in (4.0, 1.0))
    assert not audit_maps(np.concatenate([wide, narrow]), ["wide"] * 200 + ["narrow"] * 200).repeated


def test_a_place_of_one_class_is_found_and_told_with_its_numbers() -> None:
    heat = wandering(200)
    names = ["horse" if number % 2 else "dog" for number in range(200)]
    marked = [number for number in range(200) if number % 2][:40]
    heat[marked] = heat[marked] + 2 * blobs(np.full(40, 14.5), np.full(40, 1.5), 1.0)  # a watermark beside the horse
    (place,) = audit_maps(heat, names).repeated
    by_hand = 0
    for number in range(1, 200, 2):
        level = np.sort(heat[number].ravel())[-16]
        by_hand += any(heat[number, row, column] >= level for row, column in place.cells)
    assert (place.name, place.of, place.pictures) == ("horse", 100, by_hand)
    assert 40 <= by_hand <= 42
    assert all(row >= 12 and column <= 3 for row, column in place.cells)
    assert 0.4 <= place.share <= 0.42
    assert place.elsewhere < 0.02
    assert place.p < 1e-6
    (sentence,) = (each for each in audit_maps(heat, names).verdict if "the same place" in each)
    assert sentence.startswith("'horse': the same place is hot in ")
    assert "bottom left corner" in sentence


def test_no_place_is_found_in_classes_that_are_alike() -> None:
    found = []
    for seed in range(20):
        maps = unit_maps(wandering(120, seed))
        members = {str(name): np.arange(120) % 4 == name for name in range(4)}
        found += repeated_places(maps, members)
    assert not found


# Clusters


def test_the_clusters_are_the_kinds_of_maps() -> None:
    kinds = np.repeat([0, 1, 2], [80, 20, 30])
    corner = at_corner(50)
    heat = np.concatenate([wandering(80), corner[:20], corner[20:, ::-1, ::-1]])
    audited = audit_maps(heat, ["a"] * 130)
    assert adjusted_rand_score(kinds, audited.labels) > 0.95
    assert named(audited) == {"top right corner", "bottom left corner"}
    for cluster in audited.clusters:
        if cluster.is_one_place:
            assert np.bincount(kinds[list(cluster.members)]).max() >= 0.95 * len(cluster.members)
            assert cluster.apart >= 3
    assert audited.verdict[0].startswith("50 of 130 pictures form 2 clusters of one place each: ")


def test_a_mark_in_most_pictures_is_a_finding_and_an_object_in_the_middle_is_none() -> None:
    marked = audit_maps(np.concatenate([wandering(30), at_corner(90)]), ["a"] * 120)
    assert named(marked) == {"top right corner"}
    assert any(
        "of the heat of all 120 pictures lies in the top right corner" in each for each in marked.verdict
    ) or any("most of it in the top right corner" in each for each in marked.verdict)
    middle = blobs(*np.random.default_rng(0).normal(8, 0.2, (2, 90)))
    assert not named(audit_maps(np.concatenate([wandering(30), middle]), ["a"] * 120))


@pytest.mark.parametrize("native", [4, 7, 12])
def test_coarse_maps_are_no_clusters_because_they_have_few_places(native: int) -> None:
    """Many maps are the same here: one hot cell of a grid of few."""
    rng = np.random.default_rng(native)
    cells = np.clip(rng.normal(native / 2, native / 5, (300, 2)), 0, native - 0.01).astype(int)
    coarse = torch.zeros(300, 1, native, native)
    coarse[torch.arange(300), 0, cells[:, 0], cells[:, 1]] = 1
    heat = cnnviz.images.resize(coarse, (16, 16))[:, 0].numpy()
    assert not [each for each in audit_maps(heat, ["a"] * 300, native=(native, native)).clusters if each.is_finding]


def test_maps_that_change_gradually_are_no_clusters() -> None:
    for seed in range(4):
        assert (cluster_maps(unit_maps(wandering(150, seed))) == -1).all()
    assert (cluster_maps(unit_maps(np.random.default_rng(0).random((150, 16, 16)))) == -1).all()
    assert (cluster_maps(unit_maps(np.ones((50, 16, 16)))) == -1).all()


def test_many_maps_are_clustered_class_by_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cnnviz.datasets.findings.map_clusters.MOST", 100)
    heat = np.concatenate([wandering(100), wandering(70, 5), at_corner(30)])
    found = audit_maps(heat, ["dog"] * 100 + ["horse"] * 100)
    assert named(found) == {"top right corner"}
    (cluster,) = (each for each in found.clusters if each.is_one_place)
    assert set(cluster.members) == set(range(170, 200))


def test_the_strangest_map_is_the_odd_one() -> None:
    heat = np.concatenate([wandering(30), at_corner(1)])
    typical, strange = typical_and_strange(unit_maps(heat), np.ones(31, np.bool_), 3)
    assert strange[0] == 30
    assert len(typical) == len(strange) == 3
    assert not set(typical) & set(strange)
    flat = unit_maps(heat).reshape(31, -1)
    medians = [np.median([np.linalg.norm(a - b) for b in flat]) for a in flat]
    assert typical == np.argsort(medians)[:3].tolist()


# What is said


def test_honest_maps_get_one_sentence_that_says_so() -> None:
    audited = audit_maps(wandering(120), ["a", "b"] * 60)
    (sentence,) = audited.verdict
    assert sentence.startswith("Nothing stands out in 120 pictures: the corners have ")
    assert repr(audited) == f"Audit of 120 maps by maps, by label class\n- {sentence}"


def test_of_many_findings_some_are_told_and_the_others_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    heat = np.concatenate([at_corner(20, seed) if seed % 2 else wandering(20, seed) for seed in range(6)])
    names = [f"class {number // 20}" for number in range(120)]
    every = [each for each in audit_maps(heat, names).verdict if "lies in the" in each]
    assert [each.partition(":")[0] for each in every[1:]] == ["'class 1'", "'class 3'", "'class 5'"]
    monkeypatch.setattr("cnnviz.datasets.findings.auditing.SENTENCES", 2)
    told = [each for each in audit_maps(heat, names).verdict if "lies in the" in each or "more regions" in each]
    assert told == [*every[:2], "2 more regions stand out; the tables have them."]


def test_blank_maps_are_told_and_count_nowhere() -> None:
    heat = np.concatenate([np.zeros((5, 16, 16)), wandering(20)])
    audited = audit_maps(heat, ["a"] * 25)
    assert audited.verdict[-1] == "5 of 25 maps have no heat, and count in no share."
    assert audited.regions[0]["pictures"] == 20
    assert (audited.labels[:5] == -1).all()
    nothing = audit_maps(np.zeros((12, 16, 16)), ["a"] * 12)
    assert "no picture has a map with heat" in nothing.verdict[0].lower()


@pytest.mark.parametrize(
    ("heat", "classes", "message"),
    [
        (np.zeros((0, 16, 16)), [], "no maps"),
        (np.zeros((2, 16, 15)), ["a", "a"], "none of an audit"),
        (np.full((2, 16, 16), np.nan), ["a", "a"], "2 of 2 maps have values that are NaN"),
        (np.zeros((2, 16, 16)), ["a"], "classes has 1 entries for 2 maps"),
    ],
)
def test_what_is_no_set_of_maps_is_refused(heat: Floats, classes: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        audit_maps(heat, classes)


def test_without_scikit_learn_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sklearn.cluster", None)
    with pytest.raises(ImportError, match=r"scikit-learn; pip install 'cnnviz\[audit\]'"):
        audit_maps(wandering(30), ["a"] * 30)


def test_the_shortcut_network_gives_its_tag_away() -> None:
    """Of this seed each corner has ten tags."""
    tagged, plain = draw(40, seed=396, tag="true", held_out=True), draw(14, seed=32, held_out=True)
    kinds = np.concatenate([tagged.tags[:, [8, 8, 87, 87], [8, 87, 8, 87]].argmax(1) + 1, np.zeros(14, int)])
    assert np.bincount(kinds).tolist() == [14, 10, 10, 10, 10]
    inputs = demo.as_inputs(np.concatenate([tagged.pictures, plain.pictures]))
    explanation = cnnviz.explain(demo.network("demo-shortcut"), inputs, "grad_cam")
    heat = cnnviz.images.resize(explanation.values.relu(), (16, 16))[:, 0].numpy()
    audited = audit_maps(heat, explanation.names(), native=(12, 12))
    assert adjusted_rand_score(kinds, audited.labels) >= 0.9
    assert named(audited) == {f"{down} {right} corner" for down in ("top", "bottom") for right in ("left", "right")}
    assert any("of the heat of all 54 pictures lies in the corners" in each for each in audited.verdict)


# Of a batch


def test_an_audit_of_a_batch_is_that_of_its_maps(batch: Batch) -> None:
    audited = audit(batch, "grad_cam")
    answered = batch.answered["grad_cam"]
    heat = np.stack([cnnviz.images.resize(each.values.relu(), (16, 16))[0, 0].numpy() for each in answered])
    assert np.allclose(audited.maps, unit_maps(heat), atol=1e-6)
    assert list(audited.ids) == answered.ids
    assert audited.by == "predicted"
    assert len(audited) == 6
    assert list(audited.classes) == [demo.CATEGORIES[row["predicted"]] for row in answered.table()]
    fine = audit(batch, "gradient")
    sums = [each.values.abs().sum(1)[0].numpy() for each in batch.answered["gradient"]]
    assert np.allclose(fine.maps, unit_maps(np.stack([s.reshape(16, 6, 16, 6).mean((1, 3)) for s in sums])), atol=1e-6)


def test_masks_lie_where_the_input_lies(batch: Batch, tmp_path: Path) -> None:
    """Pictures of other shapes than the input: a mask of all that is seen is full, one of the left half is a half."""
    for item in batch.answered["grad_cam"]:
        height, width = item.originals[0].size
        mask = np.zeros((height, width), np.uint8)
        left, _, right, _ = item.originals[0].region
        mask[:, : (left + right) // 2] = 255
        (tmp_path / Path(item.item_id).parent).mkdir(exist_ok=True)
        Image.fromarray(mask).save(tmp_path / item.item_id)
    audited = audit(batch, "grad_cam", masks=tmp_path)
    whole = audited.inside[0]
    assert whole["pictures"] == 6
    assert whole["uniform"] == pytest.approx(0.5, abs=0.02)
    assert whole["share"] == pytest.approx(audited.maps[:, :, :8].sum((1, 2)).mean(), abs=0.02)


def test_items_bring_masks_of_their_own(whole_run: Any, batch: Batch, tmp_path: Path) -> None:
    """A table with a mask for two of the pictures: the same as the folder of masks."""
    names = [item.item_id for item in batch.answered["grad_cam"]][:2]
    rows = ["path,mask"]
    for number, name in enumerate(batch.ids):
        if name in names:
            with Image.open(whole_run.pictures / name) as picture:
                mask = np.zeros((picture.height, picture.width), np.uint8)
            mask[: len(mask) // 3] = 255
            Image.fromarray(mask).save(tmp_path / f"{number}.png")
        rows.append(f"{whole_run.pictures / name},{tmp_path / f'{number}.png' if name in names else ''}")
    (tmp_path / "table.csv").write_text("\n".join(rows))
    model = cnnviz.load_model("demo")
    own = cnnviz.batch(model, tmp_path / "table.csv", "grad_cam", tmp_path / "out", labels=None, workers=0)
    assert [own.mask_file(number) is not None for number in range(len(own))] == [name in names for name in batch.ids]
    found = audit(own).inside[0]
    folder = tmp_path / "masks"
    for number, name in enumerate(batch.ids):
        if name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / f"{number}.png").rename(folder / name)
    assert found == audit(batch, "grad_cam", masks=folder).inside[0]
    assert found["pictures"] == 2


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({}, ValueError, "has the methods grad_cam, gradient; name the one"),
        ({"method": "grad_cum"}, LookupError, "no method 'grad_cum' in the batch"),
        ({"method": "grad_cam", "by": "label"}, ValueError, "no item of the batch has a label class"),
        ({"method": "grad_cam", "by": "mood"}, ValueError, "no by='mood'"),
        ({"method": "grad_cam", "sign": "signed"}, ValueError, "is no heat"),
        ({"method": "grad_cam", "most": 0}, ValueError, "most=0 leaves no map"),
    ],
)
def test_what_a_batch_does_not_have_is_refused(
    batch: Batch, settings: dict[str, str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        audit(batch, **settings)  # type: ignore[arg-type]


def test_of_many_maps_some_are_chosen_evenly(batch: Batch) -> None:
    audited = audit(batch, "grad_cam", most=3)
    assert list(audited.ids) == [batch.answered.ids[number] for number in (0, 2, 5)]
    assert audited.verdict[-1] == "3 of 6 pictures were looked at, chosen evenly."
