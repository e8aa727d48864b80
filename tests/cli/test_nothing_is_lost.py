"""Nothing that a command reads or that stands there is lost, and what it says is so."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from cnnviz import demo
from cnnviz.__main__ import files_behind_dashes, main
from cnnviz.cli import batch_explain, map_files, places
from cnnviz.explanations.explanation import Explanation
from cnnviz.images.finding import find_pictures, look_into

STAR = demo.pictures().pictures[demo.CATEGORIES.index("star")]
RING = demo.pictures().pictures[demo.CATEGORIES.index("ring")]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(STAR).save("star.png")
    Image.fromarray(RING).save("ring.png")
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, list[str], list[str]]]:
    """Runs a command: its status, its lines, and what it says on stderr."""

    def ran(*words: str | Path) -> tuple[int, list[str], list[str]]:
        status = main([str(word) for word in words])
        said = capsys.readouterr()
        return status, said.out.splitlines(), said.err.splitlines()

    return ran


def files(folder: Path = Path()) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def refused(told: tuple[int, list[str], list[str]], reason: str) -> None:
    status, said, errors = told
    assert status == 2
    assert said == []
    assert len(errors) == 1
    assert reason in errors[0]


# What is read is never replaced


def test_weights_start_baseline_and_tables_are_never_replaced(here: Path, run: Any) -> None:
    save_file(demo.network("demo").state_dict(), "net.safetensors")
    Path("names.txt").write_text("\n".join("abcdefgh"))
    Path("labels.csv").write_text("file,label\nstar.png,star\nring.png,ring\n")
    Path("boxes.csv").write_text("file,x0,y0,x1,y1\nstar.png,1,1,50,50\n")
    os.symlink("star.png", "link.png")
    os.link("star.png", "hard.png")
    before = {name: Path(name).read_bytes() for name in files()}
    again = "--overwrite"
    for words in (
        ("explain", "star.png", "--weights", "net.safetensors", "-o", "net.safetensors", again),
        (
            "explain",
            "star.png",
            "-m",
            "integrated_gradients",
            "--steps",
            "2",
            "--baseline",
            "ring.png",
            "-o",
            "ring.png",
            again,
        ),
        ("explain", "star.png", "-o", "link.png", again),
        ("explain", "star.png", "-o", "hard.png", again),
        (
            "synthesize",
            "deep_dream",
            "--layer",
            "layer2",
            "--start",
            "star.png",
            "--steps",
            "1",
            "-o",
            "star.png",
            again,
        ),
        ("invert", "star.png", "--steps", "1", "-o", "star.png", again),
        ("excite", "star.png", "--layer", "layer2", "--channels", "1", "-o", "star.png", again),
        ("confusion", "star.png", "--target", "ring", "-o", "star.png", again),
        ("project", "star.png", "--layer", "layer2", "-o", "star.png", again),
        ("deconv-segment", "star.png", "-o", "star.png", again),
        ("classic", "star.png", "-o", "out/", "--sheet", "star.png", again),
        ("segment", "star.png", "-o", "out/", "--write-masks", ".", again),
    ):
        refused(run(*words), "is read, and would be replaced; choose another name")
    for words in (
        ("evaluate", "star.png", "--annotations", "boxes.csv", "-o", "boxes.csv", again),
        ("confusions", ".", "--labels", "labels.csv", "-o", "m.png", "--counts", "labels.csv", again),
    ):
        refused(run(*words), "is read, and would be replaced")
    assert {name: Path(name).read_bytes() for name in files()} == before


@pytest.mark.parametrize(
    "words",
    [
        ("evaluate", "star.png", "--metric", "sparseness", "-o", "x.csv", "--each", "./x.csv"),
        ("classic", "star.png", "-o", "x.png", "--sheet", "x.png"),
        ("segment", "a/x.png", "b/x.png", "-o", "o/", "--write-masks", "masks"),
    ],
)
def test_two_answers_in_one_place_are_refused(here: Path, run: Any, words: tuple[str, ...]) -> None:
    for folder in ("a", "b"):
        Path(folder).mkdir()
        Image.fromarray(STAR).save(f"{folder}/x.png")
    refused(run(*words), "two answers would go to")


def test_counts_are_a_table(here: Path, run: Any) -> None:
    Path("d/star").mkdir(parents=True)
    Image.fromarray(STAR).save("d/star/1.png")
    refused(run("confusions", "d", "-o", "m.png", "--counts", "m2.png"), "m2.png has no suffix of a table; use .csv")


# What stands there is replaced only on request


def test_an_answer_that_is_there_is_replaced_on_request_only(here: Path, run: Any) -> None:
    Path("map.png").write_bytes(b"mine")
    refused(
        run("explain", "star.png", "-o", "map.png"), "map.png is there already; --overwrite replaces it, and --skip"
    )
    assert Path("map.png").read_bytes() == b"mine"
    status, said, errors = run("explain", "star.png", "-o", "map.png", "--skip-existing")
    assert (status, said, errors) == (0, ["1 of 1 pictures have their answers already"], [])
    assert Path("map.png").read_bytes() == b"mine"
    refused(run("explain", "star.png", "-o", "map.png", "--skip-existing", "--overwrite"), "say one of them")
    os.chmod("map.png", 0o640)
    assert run("explain", "star.png", "-o", "map.png", "--overwrite")[0] == 0
    assert _pixels("map.png").shape == (96, 96, 3)
    assert Path("map.png").stat().st_mode & 0o777 == 0o640


def test_the_other_answers_refuse_alike(here: Path, run: Any) -> None:
    for name in ("t.csv", "e.png", "d.png", "feature.png"):
        Path(name).write_bytes(b"mine")
    for words in (
        ("evaluate", "star.png", "--metric", "sparseness", "-o", "t.csv"),
        ("excite", "star.png", "--layer", "layer2", "--channels", "1", "-o", "e.png"),
        ("deconv-segment", "star.png", "-o", "d.png"),
        ("synthesize", "feature_image", "--layer", "layer2", "--channel", "1", "--steps", "1", "-o", "feature.png"),
    ):
        refused(run(*words), "is there already; --overwrite replaces it")
    assert all(Path(name).read_bytes() == b"mine" for name in ("t.csv", "e.png", "d.png", "feature.png"))


def test_a_link_is_written_through_and_a_read_only_file_stays(here: Path, run: Any) -> None:
    Path("real").mkdir()
    Path("real/map.png").write_bytes(b"old")
    os.symlink("real/map.png", "map.png")
    assert run("explain", "star.png", "-o", "map.png", "--overwrite")[0] == 0
    assert Path("map.png").is_symlink()
    assert _pixels("real/map.png").shape == (96, 96, 3)
    os.chmod("real/map.png", 0o444)
    before = Path("real/map.png").read_bytes()
    refused(run("explain", "ring.png", "-o", "map.png", "--overwrite"), "map.png can't be written: it is read-only")
    assert Path("real/map.png").read_bytes() == before


def test_without_a_place_answers_have_a_new_folder_each_time(here: Path, run: Any) -> None:
    for _ in range(2):
        assert run("explain", ".", "-q")[0] == 0
    expected = ["cnnviz-explain-2/ring_grad_cam.png", "cnnviz-explain-2/star_grad_cam.png"]
    expected += ["cnnviz-explain/ring_grad_cam.png", "cnnviz-explain/star_grad_cam.png", "ring.png", "star.png"]
    assert files() == expected
    assert run("explain", ".", "-q", "--skip-existing")[0] == 0
    assert files() == expected


def test_answers_do_not_become_questions(here: Path, run: Any) -> None:
    for suffix in ("png", "jpg", "webp", "tif"):
        assert run("explain", "star.png", "-o", f"map.{suffix}", "-q")[0] == 0
    assert run("segment", "star.png", "-o", "cut.png", "--write-masks", "m", "-q")[0] == 0
    status, said, errors = run("explain", ".", "-o", "out/")
    assert status == 0
    assert [line.partition(":")[0] for line in said] == ["out/ring_grad_cam.png", "out/star_grad_cam.png"]
    assert errors == ["cnnviz: .: left out 1 folder, 5 pictures that cnnviz made; -r searches folders"]
    assert run("explain", "map.png", "-o", "again.png")[0] == 0  # named, it is meant


def test_demo_refuses_a_folder_that_it_did_not_make(here: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from cnnviz.cli import demo as demonstration

    Path("site").mkdir()
    Path("site/index.html").write_text("mine")
    refused(
        run("demo", "-o", "site"), "the folder site is there, and cnnviz demo did not make it; name another with -o"
    )
    assert files(Path("site")) == ["index.html"]
    Path("site/index.html").write_text("<footer>Made by cnnviz 0.6.0.</footer>")
    demonstration.check_own(Path("site"))
    Path("site/index.html").unlink()
    demonstration.check_own(Path("site"))


# Names


def test_names_are_stable_and_mirror_the_folders(here: Path, run: Any) -> None:
    for path in ("t/a/x.png", "t/b/x.png", "t/b/x.jpg", "t/y.png"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(STAR).save(path)
    os.symlink("..", "t/a/up")
    status, _, errors = run("explain", "t", "-r", "-o", "out", "-q")
    assert (status, errors) == (0, [])
    found = ["a/x_grad_cam.png", "b/x-jpg_grad_cam.png", "b/x-png_grad_cam.png", "y_grad_cam.png"]
    assert files(Path("out")) == found
    _, _, errors = run("explain", "t", "-o", "flat")
    assert errors == ["cnnviz: t: left out 2 folders; -r searches folders"]


def test_pictures_of_one_stem_have_an_inversion_each(here: Path, run: Any) -> None:
    for folder, picture in (("s1", STAR), ("s2", RING)):
        Path(folder).mkdir()
        Image.fromarray(picture).save(f"{folder}/x.png")
    assert run("invert", "s1", "s2", "--steps", "1", "-o", "o/", "-q")[0] == 0
    assert files(Path("o")) == ["s1-x_inversion.png", "s2-x_inversion.png"]


@pytest.mark.parametrize("name", ["b" * 250, "猫" * 83, "c" * 251])
def test_names_of_any_legal_length_work(here: Path, run: Any, name: str) -> None:
    os.rename("star.png", f"{name}.png")
    status, _, errors = run("explain", f"{name}.png", "-o", "o/", "-q")
    assert (status, errors) == (0, [])
    (answer,) = files(Path("o"))
    assert len(os.fsencode(answer)) <= 255
    assert answer.endswith("_grad_cam.png")
    assert run("explain", f"{name}.png", "-o", f"{'d' * 251}.png", "-q")[0] == 0


def test_a_shortened_name_is_told_from_another() -> None:
    first, second = (places.shortened("x" * 300 + end, "_cam.png") for end in "ab")
    assert first != second
    assert len(first) <= 255


def test_behind_dashes_everything_is_a_file(here: Path, run: Any) -> None:
    os.rename("star.png", "-dash.png")
    assert run("explain", "-o", "x.png", "-q", "--", "-dash.png")[0] == 0
    assert files_behind_dashes(["explain", "--", "-", "-x", "y"]) == ["explain", "-", "./-x", "y"]


def test_an_empty_name_is_an_error(here: Path, run: Any) -> None:
    refused(run("explain", ""), "a name is empty; name a file or folder")
    refused(run("explain", "star.png", "-o", ""), "-o is empty; name a file or a folder")
    refused(run("confusions", "", "-o", "m.png"), "a name is empty; name a folder")
    refused(run("demo", "-o", ""), "-o is empty; name a file or a folder")
    for option in ("--weights", "--annotations", "--each", "--layer"):
        refused(run("evaluate", "star.png", "--metric", "roc_auc", option, ""), f"the value behind {option} is empty")
        refused(run("evaluate", "star.png", "--metric", "roc_auc", f"{option}="), f"the value behind {option} is empty")
    refused(run("explain", "star.png", "-o", ".png"), ".png is a suffix without a name; say -o map.png")


def test_what_a_folder_left_out_is_told(here: Path, run: Any) -> None:
    for name in ("a.heif2", "b.heif2", "notes.txt", ".hidden.png"):
        Path(name).write_bytes(b"x")
    os.symlink("nowhere", "broken.png")
    Path("inside").mkdir()
    status, said, errors = run("explain", ".", "-o", "o/")
    left_out = "3 files of other kinds (.heif2, .txt), 1 broken link, 1 folder"
    assert errors == [f"cnnviz: .: left out {left_out}; -r searches folders"]
    assert (status, len(said)) == (0, 2)
    assert look_into(Path()).left_out() == left_out.replace("1 folder", "2 folders")
    with pytest.raises(FileNotFoundError, match=r"holds no pictures .*; folders inside it are not searched"):
        find_pictures(Path("inside"))


# Places that can't be written are found before the work


def test_a_place_that_cannot_be_written_is_found_before_the_work(
    here: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("ro").mkdir()
    may = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: not (mode & os.W_OK and Path(path).name == "ro") and may(path, mode)
    )
    monkeypatch.setattr(batch_explain.Explainer, "__call__", lambda *given: pytest.fail("work was done"))
    for words in (
        ("explain", "star.png", "-o", "ro/"),
        ("explain", "star.png", "-o", "ro/new/deeper/"),
        ("explain", "star.png", "-o", "ro/x.png"),
        ("evaluate", "star.png", "--metric", "sparseness", "-o", "ro/x.csv"),
        ("segment", "star.png", "-o", "o/", "--write-masks", "ro"),
    ):
        refused(run(*words), "nothing can be written in the folder ro; name another folder")
    Path("file").write_bytes(b"x")
    refused(run("explain", "star.png", "-o", "file/deep/"), "file is a file, and a folder is needed there")
    Path("o").mkdir()
    Path("o/star_grad_cam.png").mkdir()
    refused(run("explain", "star.png", "-o", "o/"), "o/star_grad_cam.png is a folder, and an answer would go there")


def test_pages_that_are_there_are_found_before_the_work(here: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_explain.Explainer, "__call__", lambda *given: pytest.fail("work was done"))
    _folder(13)
    Path("s-2.png").write_bytes(b"mine")
    Path("s-x.png").write_bytes(b"mine")
    refused(run("explain", "d", "-o", "s.png"), "s-2.png is there already; --overwrite replaces it")
    refused(run("classic", "d", "-o", "o/", "--sheet", "s.png"), "s-2.png is there already; --overwrite replaces it")
    assert places.earlier_pages(Path("s.png"), 12) == []


def test_a_read_only_answer_is_found_before_the_work(here: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_explain.Explainer, "__call__", lambda *given: pytest.fail("work was done"))
    Path("map.png").write_bytes(b"mine")
    os.chmod("map.png", 0o444)
    refused(run("explain", "star.png", "-o", "map.png", "--overwrite"), "map.png can't be written: it is read-only")


# True statuses


class _Full(io.RawIOBase):
    """A disk without room, behind standard output."""

    def writable(self) -> bool:
        return True

    full = True

    def write(self, content: Any) -> int:
        if self.full:
            raise OSError(28, "No space left on device")
        return len(content)


@pytest.mark.parametrize("at_once", [True, False])
def test_a_full_disk_behind_standard_output_fails_no_picture(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], at_once: bool
) -> None:
    _folder(3)
    raw = _Full()
    console: Any = io.TextIOWrapper(raw if at_once else io.BufferedWriter(raw), write_through=at_once)  # type: ignore[type-var, arg-type]
    monkeypatch.setattr(sys, "stdout", console)
    assert main(["explain", "d", "-o", "o/"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "cnnviz: standard output can't be written: No space left on device; what went into files is whole"
    assert len(files(Path("o"))) == 3
    monkeypatch.undo()
    raw.full = False  # what is left in the buffer is written when it is collected


def test_a_picture_that_standard_output_does_not_take_is_an_error(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = _Full()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(raw)))  # type: ignore[arg-type]
    assert main(["explain", "star.png", "-o", "-"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "cnnviz: standard output can't be written: No space left on device; name a file with -o"
    monkeypatch.undo()
    raw.full = False


def _folder(count: int) -> None:
    Path("d").mkdir()
    for number in range(count):
        Image.fromarray(STAR if number % 2 else RING).save(f"d/{number:02}.png")


def test_a_full_disk_stops_the_work_and_says_how_far_it_got(
    here: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _folder(5)
    asked: list[int] = []
    answer, put = batch_explain.Explainer.__call__, map_files.write

    def counted(self: batch_explain.Explainer, *given: Any) -> dict[str, Explanation]:
        asked.append(len(given[0]))
        return answer(self, *given)

    def full(path: Path, content: bytes) -> None:
        if path.name.startswith("02"):
            error = OSError(f"{path} can't be written: No space left on device; choose another place")
            error.errno = 28
            raise error
        put(path, content)

    monkeypatch.setattr(batch_explain.Explainer, "__call__", counted)
    monkeypatch.setattr(map_files, "write", full)
    status, said, errors = run("explain", "d", "-o", "o/")
    assert status == 1
    assert [line.partition(":")[0] for line in said] == ["o/00_grad_cam.png", "o/01_grad_cam.png"]
    assert len(errors) == 1
    assert "No space left on device" in errors[0]
    assert errors[0].endswith("2 of 5 pictures are answered, and --skip-existing goes on with the others")
    assert asked == [5]  # what was written is not asked again
    monkeypatch.setattr(map_files, "write", put)
    status, said, errors = run("explain", "d", "-o", "o/", "--skip-existing")
    assert (status, errors) == (0, [])
    assert said[0] == "2 of 5 pictures have their answers already"
    assert len(said) == 4


def test_one_answer_that_cannot_be_written_costs_only_itself(
    here: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _folder(4)
    put = map_files.write

    def refuse(path: Path, content: bytes) -> None:
        if path.name.startswith("01"):
            raise OSError(f"{path} can't be written: File name too long; choose another place")
        put(path, content)

    monkeypatch.setattr(map_files, "write", refuse)
    status, said, errors = run("classic", "d", "-o", "o/", "--sheet", "sheet.png")
    assert status == 1
    assert len(said) == len(set(said)) == 3 * 11
    assert len(errors) == 1
    with Image.open("sheet.png") as sheet:
        assert sheet.height < 2000  # four pictures in two rows each, and none of them twice


def test_a_bad_picture_never_stops_a_folder(here: Path, run: Any) -> None:
    _folder(2)
    Path("d/00a.png").write_bytes(b"")
    np.save("d/00b.npy", np.zeros((3, 2, 2), np.float32))  # too small for the network
    for command, more in (
        ("explain", ()),
        ("segment", ()),
        ("classic", ()),
        ("invert", ("--steps", "1")),
        ("project", ("--layer", "layer2")),
        ("evaluate", ("--metric", "sparseness")),
        ("deconv-segment", ()),
    ):
        words = (command, "d", *more, *(() if command == "evaluate" else ("-o", f"{command}/")))
        status, said, errors = run(*words)
        assert status == 1, (command, errors)
        assert any("00a.png" in line for line in errors), command
        assert said, (command, errors)


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_console_that_lacks_letters_fails_nothing(here: Path, encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    os.rename("star.png", "猫.png")
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding=encoding))
    assert main(["explain", ".", "-o", "o/"]) == 0
    assert shown.getvalue().decode("ascii").splitlines()[1].startswith("o/\\u732b_grad_cam.png: star")
    assert files(Path("o")) == ["ring_grad_cam.png", "猫_grad_cam.png"]


class _Stopped(io.RawIOBase):
    """A pipe whose reader has gone, as behind ``head``."""

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        raise BrokenPipeError


def test_whoever_stops_reading_does_not_end_the_work(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _folder(3)
    console = io.TextIOWrapper(_Stopped(), write_through=True)  # type: ignore[type-var]  # raw is buffered enough
    monkeypatch.setattr(sys, "stdout", console)
    assert main(["explain", "d", "-o", "o/"]) == 0
    assert len(files(Path("o"))) == 3


def test_work_that_is_interrupted_twice_goes_on_and_answers_each_once(
    here: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _folder(12)
    answer, stop_at, asked = batch_explain.Explainer.__call__, [5, 4, 99], []

    def interrupted(self: batch_explain.Explainer, *given: Any) -> dict[str, Explanation]:
        asked.append(given)
        if len(asked) == stop_at[0]:
            raise KeyboardInterrupt
        return answer(self, *given)

    monkeypatch.setattr(batch_explain.Explainer, "__call__", interrupted)
    statuses, lines = [], []
    while stop_at:
        asked.clear()
        status, said, _ = run("explain", "d", "-o", "o/", "--batch", "1", "--skip-existing")
        statuses.append(status)
        lines += [line for line in said if line.startswith("o/")]
        stop_at.pop(0)
    assert statuses == [130, 130, 0]
    assert len(lines) == len(set(lines)) == 12
    assert files(Path("o")) == [f"{number:02}_grad_cam.png" for number in range(12)]


def test_only_what_is_missing_is_made(here: Path, run: Any) -> None:
    assert run("explain", "star.png", "-o", "o/", "-q")[0] == 0
    before = Path("o/star_grad_cam.png").stat().st_mtime_ns
    status, said, _ = run("explain", ".", "-m", "grad_cam,gradient", "-o", "o/", "--skip-existing")
    assert (status, len(said)) == (0, 3)
    assert Path("o/star_grad_cam.png").stat().st_mtime_ns == before


def test_the_answer_of_another_picture_is_not_taken_for_this_one(here: Path, run: Any) -> None:
    assert run("explain", "star.png", "-o", "o/", "-q")[0] == 0
    os.replace("ring.png", "star.png")
    told = run("explain", "star.png", "-o", "o/", "--skip-existing")
    refused(told, "o/star_grad_cam.png is the answer of another picture, or that has changed; --overwrite replaces it")


@pytest.mark.parametrize("first", [("star.png",), ("star.png", "ring.png")])
def test_one_file_is_not_taken_for_the_answer_of_others(here: Path, run: Any, first: tuple[str, ...]) -> None:
    one = ("-o", "one.png", "--skip-existing")
    assert run("explain", *first, *one, "-q")[0] == 0
    assert run("explain", *first, *one)[1] == [f"{len(first)} of {len(first)} pictures have their answers already"]
    refused(run("explain", "ring.png", *one), "one.png is the answer of another picture, or that has changed")
    refused(run("explain", *first, *one, "--target", "heart"), "one.png is the answer to another question")


def test_the_answer_to_another_question_is_not_taken_for_this_one(here: Path, run: Any) -> None:
    ask = ("explain", "star.png", "-o", "o/", "--skip-existing")
    assert run(*ask, "--target", "star", "--opacity", "0.5")[0] == 0
    for other in (
        ("--target", "ring", "--opacity", "0.5"),
        ("--target", "star", "--opacity", "0.6"),
        ("--target", "star", "--opacity", "0.5", "--layer", "layer2"),
        ("--target", "star", "--opacity", "0.5", "--model", "demo-shortcut"),
        ("--target", "star", "--render", "heatmap"),
    ):
        refused(run(*ask, *other), "o/star_grad_cam.png is the answer to another question, of other")
    assert run(*ask, "--target", "star", "--opacity", "0.5", "-m", "grad_cam,smoothgrad", "--samples", "2")[0] == 0
    assert files(Path("o")) == ["star_grad_cam.png", "star_smoothgrad.png"]


# Standard input and output


def test_a_picture_comes_from_standard_input_and_goes_to_standard_output(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    def sent(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    sent(Path("star.png").read_bytes())
    assert main(["explain", "-", "-o", "-"]) == 0
    said = capsysbinary.readouterr()
    assert said.err == b""
    assert main(["explain", "star.png", "-o", "map.png", "-q"]) == 0
    np.testing.assert_array_equal(_pixels(io.BytesIO(said.out)), _pixels("map.png"))
    sent(b"")
    assert main(["explain", "-", "-o", "-"]) == 2
    assert b"nothing came from there" in capsysbinary.readouterr().err
    sent(b"no picture")
    assert main(["explain", "-"]) == 2
    assert not Path("cnnviz-explain").exists()


def _pixels(file: Any) -> Any:
    with Image.open(file) as picture:
        return np.asarray(picture).copy()


def test_standard_output_takes_one_picture(here: Path, run: Any) -> None:
    refused(run("explain", "star.png", "ring.png", "-o", "-"), "-o - writes one picture to standard output, and 2 are")
    refused(run("explain", "star.png", "-o", "-", "--show"), "--show opens files, and -o - writes none")


def test_show_opens_a_few_windows(here: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []
    monkeypatch.setattr(Image.Image, "show", lambda picture: opened.append(picture))
    _folder(6)
    status, _, errors = run("explain", "d", "-o", "o/", "--show", "-q")
    assert (status, len(opened)) == (0, 4)
    assert errors == ["cnnviz: --show opened 4 of 6 pictures; the others are in o"]


def test_evaluate_keeps_what_was_measured_when_it_is_interrupted(
    here: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _folder(4)
    answer, asked = batch_explain.Explainer.__call__, []

    def interrupted(self: batch_explain.Explainer, inputs: torch.Tensor, *given: Any) -> dict[str, Explanation]:
        asked.append(inputs)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return answer(self, inputs, *given)

    monkeypatch.setattr(batch_explain.Explainer, "__call__", interrupted)
    status, _, errors = run("evaluate", "d", "--metric", "sparseness", "--batch", "1", "-o", "t.csv", "--each", "e.csv")
    assert status == 130
    assert errors == ["cnnviz: interrupted; the table holds the 2 of 4 pictures measured"]
    assert Path("t.csv").read_text().splitlines()[1].startswith("grad_cam,2,")
    assert len(Path("e.csv").read_text().splitlines()) == 3
