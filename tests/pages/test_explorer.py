"""What the explorer's server answers, and whom it does not answer."""

from __future__ import annotations

import asyncio
import io
import os
import re
import runpy
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load as load_tensors

import cnnviz
from cnnviz import demo
from cnnviz.__main__ import main
from cnnviz.testing.state_snapshot import state, unchanged

pytest.importorskip("starlette", reason="the explorer's tests need cnnviz[serve]")
pytest.importorskip("httpx", reason="the explorer's tests need httpx")

import httpx
from starlette.requests import Request
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from cnnviz.pages.explorer import limits
from cnnviz.pages.explorer.app import explorer
from cnnviz.pages.explorer.guard import ALWAYS, Keys
from cnnviz.pages.explorer.jobs import Job, Jobs, warnings_by_thread
from cnnviz.pages.explorer.limits import Kept, Refused
from cnnviz.pages.explorer.offered import Subject, subject
from cnnviz.pages.explorer.sent import body

PORT = 12345
HOME = f"http://127.0.0.1:{PORT}"
FOREIGN = {"Origin": "http://evil.example"}


@pytest.fixture(scope="module")
def of_demo() -> Subject:
    return subject(cnnviz.load_model("demo"), {})


class Page:
    """Speaks to the server as its page does, opened with the token."""

    def __init__(self, subjects: list[Subject]):
        self.keys, self.jobs = Keys(PORT), Jobs()
        self.app = explorer(subjects, self.keys, self.jobs)
        self.client = TestClient(self.app, base_url=HOME)
        self.client.get(f"/?token={self.keys.token}")
        self.headers = {"Origin": HOME, "X-Cnnviz-Page": self.keys.page, "Sec-Fetch-Site": "same-origin"}

    def get(self, path: str) -> Any:
        return self.client.get(path, headers={"Sec-Fetch-Site": "same-origin"})

    def post(self, path: str, **more: Any) -> Any:
        return self.client.post(path, headers=self.headers | more.pop("headers", {}), **more)

    def sent(self, content: bytes, name: str = "star.png") -> str:
        answer = self.post("/pictures", params={"name": name}, content=content)
        assert answer.status_code == 201, answer.text
        kept: str = answer.json()["picture"]
        return kept

    def asked(self, picture: str, **question: Any) -> str:
        answer = self.post("/jobs", json={"model": 0, "picture": picture, "methods": ["grad_cam"]} | question)
        assert answer.status_code == 202, answer.text
        job: str = answer.json()["job"]
        return job

    def done(self, job: str) -> dict[str, Any]:
        while (told := self.get(f"/jobs/{job}").json())["state"] in ("waiting", "running"):
            time.sleep(0.005)
        return told


@pytest.fixture
def page(of_demo: Subject) -> Iterator[Page]:
    opened = Page([of_demo])
    with opened.client:  # one event loop for all requests
        yield opened
    opened.jobs.close()


@pytest.fixture(scope="module")
def star() -> bytes:
    return as_png(demo.pictures().pictures[3])


def as_png(pixels: Any, **more: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", **more)
    return stream.getvalue()


# ---------------------------------------------------------------- who is answered


def test_the_page_opens_with_the_token_and_stays_open(page: Page) -> None:
    fresh = TestClient(page.app, base_url=HOME)
    opened = fresh.get(f"/?token={page.keys.token}")
    assert opened.status_code == 200
    cookie = opened.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert page.keys.token not in opened.text
    assert fresh.get("/").status_code == 200  # reloaded, without the token in the address


@pytest.mark.parametrize("path", ["/", "/?token=", "/?token=wrong", "/?token={token}x", "/?token={token}&token=x"])
def test_a_wrong_token_opens_nothing(page: Page, path: str) -> None:
    answer = TestClient(page.app, base_url=HOME).get(path.format(token=page.keys.token))
    assert answer.status_code == 403
    assert answer.text.startswith("the token is missing or wrong; open the address that cnnviz serve printed")
    assert "set-cookie" not in answer.headers


def test_nothing_is_told_without_the_cookie(page: Page) -> None:
    stranger = TestClient(page.app, base_url=HOME)
    paths = ["/choices", "/explorer.js", "/explorer.css", "/jobs/x", "/pictures/x", "/nothing"]
    for answer in [*map(stranger.get, paths), stranger.post("/example", headers=page.headers)]:
        assert answer.status_code == 403
        assert "token" in answer.json()["error"]
    assert len(page.jobs.kept) == 0


@pytest.mark.parametrize("host", ["evil.example", "evil.example:12345", "127.0.0.1:1", "127.0.0.1", "", "[::1]:12345"])
def test_a_foreign_host_is_refused(page: Page, host: str) -> None:
    answer = page.client.get("/choices", headers={"Host": host})
    assert answer.status_code == 400
    assert page.client.get(f"/?token={page.keys.token}", headers={"Host": host}).status_code == 400


def test_localhost_is_this_machine_too(page: Page) -> None:
    local = TestClient(page.app, base_url=f"http://localhost:{PORT}")
    assert local.get(f"/?token={page.keys.token}").status_code == 200
    answer = local.post("/example", headers=page.headers | {"Origin": f"http://localhost:{PORT}"})
    assert answer.status_code == 201


@pytest.mark.parametrize(
    "headers",
    [
        FOREIGN,
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://127.0.0.1:8888"},
        {"Origin": f"https://127.0.0.1:{PORT}"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"X-Cnnviz-Page": ""},
        {"X-Cnnviz-Page": "wrong"},
    ],
)
def test_another_page_changes_nothing(page: Page, headers: dict[str, str]) -> None:
    for path in ("/example", "/pictures", "/jobs", "/formula", "/jobs/x/cancel"):
        answer = page.post(path, headers=headers, content=b"{}")
        assert answer.status_code == 403, path
    assert len(page.jobs.kept) == 0


def test_another_page_reads_nothing(page: Page) -> None:
    for site in ("cross-site", "same-site"):
        assert page.client.get("/choices", headers={"Sec-Fetch-Site": site}).status_code == 403


def test_every_answer_carries_the_policy(page: Page) -> None:
    for answer in (page.get("/"), page.get("/choices"), page.get("/nothing"), page.client.get("/", headers=FOREIGN)):
        for name, value in ALWAYS.items():
            assert answer.headers[name] == value
    wanted = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    wanted += "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    assert ALWAYS["Content-Security-Policy"] == wanted
    refused = page.client.get("/choices", headers={"Host": "evil.example"})
    assert refused.headers["Content-Security-Policy"] == wanted


def test_cookies_of_other_programs_do_no_harm(page: Page) -> None:
    fresh = TestClient(page.app, base_url=HOME)
    own = f"{page.keys.cookie}={page.keys.token}"
    assert fresh.get("/choices", headers={"Cookie": f'odd"=\x01{{; {own}; a b=c'}).status_code == 200
    assert fresh.get("/choices", headers={"Cookie": f"x{own}"}).status_code == 403


def test_keys_are_new_at_each_start() -> None:
    one, other = Keys(1), Keys(1)
    assert len({one.token, one.page, other.token, other.page}) == 4
    assert min(map(len, (one.token, one.page))) >= 40


def test_nothing_but_http_is_served(page: Page) -> None:
    with pytest.raises(WebSocketDisconnect), page.client.websocket_connect("/"):
        pass
    assert page.get("/nothing").status_code == 404
    assert page.client.delete("/choices", headers=page.headers).status_code == 405
    for path in ("/openapi.json", "/docs", "/../pyproject.toml", "/explorer.html.j2"):
        assert page.get(path).status_code == 404


# ---------------------------------------------------------------- pictures


def test_a_picture_is_kept_as_it_is(page: Page, star: bytes) -> None:
    kept = page.sent(star, "../../etc/../a star.png")
    shown = Image.open(io.BytesIO(page.get(f"/pictures/{kept}").content))
    assert np.array_equal(np.asarray(shown), demo.pictures().pictures[3])


def test_a_picture_is_turned_upright_and_of_frames_the_first_is_taken(page: Page) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = np.zeros((20, 40, 3), np.uint8)
    answer = page.post("/pictures", content=as_png(wide, exif=exif)).json()
    assert (answer["width"], answer["height"]) == (20, 40)
    stream = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    shown = Image.open(io.BytesIO(page.get(f"/pictures/{page.sent(stream.getvalue())}").content)).convert("RGB")
    assert shown.getpixel((4, 4)) == (255, 0, 0)


def test_what_is_no_picture_is_refused_in_a_line(page: Page, star: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = as_png(np.zeros((100, 100), np.uint8))
    monkeypatch.setattr("cnnviz.images.limits.LIMIT", 9_999)
    refused = {
        b"": "the picture is empty",
        b"<svg onload=alert(1)>": "is not a picture that can be read",
        star[: len(star) // 2]: "is damaged",
        bomb: "100 x 100 = 10,000 pixels, more than the limit of 9,999",
    }
    for content, words in refused.items():
        answer = page.post("/pictures", params={"name": "odd\n<b>.png"}, content=content)
        assert answer.status_code == 422
        assert words in answer.json()["error"]
        assert "\n" not in answer.json()["error"]


def test_a_file_that_is_too_long_is_not_read_to_its_end(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cnnviz.pages.explorer.app.UPLOAD", 1000)
    read = []

    def parts() -> Iterator[bytes]:  # of no announced length
        for number in range(100):
            read.append(number)
            yield bytes(600)

    assert page.post("/pictures", content=parts()).status_code == 413
    assert page.post("/pictures", content=bytes(1001)).status_code == 413
    lying = page.post("/pictures", content=bytes(5000), headers={"Content-Length": "10"})
    assert lying.status_code == 413
    assert page.post("/pictures", content=b"x", headers={"Content-Length": "many"}).status_code in (413, 422)
    assert page.post("/jobs", content=bytes(limits.QUESTION + 1)).status_code == 413


def test_a_page_that_leaves_in_the_middle_is_no_fault(page: Page) -> None:
    messages = [{"type": "http.request", "body": b"abc", "more_body": True}, {"type": "http.disconnect"}]

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    request = Request({"type": "http", "headers": [], "method": "POST"}, receive)
    with pytest.raises(Refused, match="ends before its end"):
        asyncio.run(body(request, 10, "the picture"))


def test_old_pictures_and_jobs_are_dropped_and_said_to_be(page: Page, star: bytes) -> None:
    first = page.sent(star)
    for _ in range(limits.PICTURES):
        page.sent(star)
    gone = page.get(f"/pictures/{first}")
    assert gone.status_code == 410
    assert "not kept any more" in gone.json()["error"]
    assert page.post("/jobs", json={"model": 0, "picture": first, "methods": ["grad_cam"]}).status_code == 410
    assert page.get("/pictures/guessed").status_code == 404
    assert page.get("/jobs/guessed").status_code == 404
    assert page.post("/jobs/guessed/cancel").status_code == 404


def test_what_is_kept_is_bounded_by_number_and_bytes() -> None:
    kept: Kept[int] = Kept("number", 3, 100)
    names = [kept.add(number, 40) for number in range(5)]
    assert len(kept) == 2
    assert kept[names[4]] == 4
    with pytest.raises(Refused, match="not kept any more"):
        kept[names[0]]
    kept.grown(names[4], 1000)  # the newest stays, however large
    assert len(kept) == 1
    assert len({*names}) == 5
    assert min(map(len, names)) >= 20


# ---------------------------------------------------------------- questions


def test_choices_are_what_the_engine_tells(page: Page) -> None:
    told = page.get("/choices").json()
    (model,) = told["models"]
    assert (model["name"], model["classes"], model["automatic"]) == ("demo", list(demo.CATEGORIES), "layer3")
    shapes = {each["name"]: each["shape"] for each in model["layers"]}
    assert shapes["layer2"] == [48, 24, 24]
    assert not {"avgpool", "fc", ""} & set(shapes)
    assert {each["name"] for each in told["methods"] if each["loads"]} == set(cnnviz.attributions)
    assert {"overlay", "heatmap"} <= {each["name"] for each in told["renderers"]}


def test_the_model_says_what_it_sees(page: Page, star: bytes, of_demo: Subject) -> None:
    told = page.done(page.asked(page.sent(star), kind="predict"))["answer"]["classes"]
    (wanted,) = of_demo.model.predict(demo.pictures().pictures[3])
    assert [each["index"] for each in told] == [each.index for each in wanted]
    assert demo.CATEGORIES[told[0]["index"]] == "star"
    assert [each["probability"] for each in told] == [each.probability for each in wanted]


def test_answers_are_those_of_explain(page: Page, star: bytes, of_demo: Subject, tmp_path: Path) -> None:
    question = {"methods": ["grad_cam", "gradient"], "formulas": ["gradient() * upsample(grad_cam(layer='layer1'))"]}
    job = page.asked(page.sent(star), target=5, layer="layer2", **question)
    told = page.done(job)
    assert told["state"] == "done"
    picture = Image.fromarray(demo.pictures().pictures[3])
    wanted = [
        cnnviz.explain(of_demo.model, picture, "grad_cam", target=5, layer="layer2"),
        cnnviz.explain(of_demo.model, picture, "gradient", target=5),
        cnnviz.explain(
            of_demo.model,
            picture,
            cnnviz.attributions["gradient"]() * cnnviz.upsample(cnnviz.attributions["grad_cam"](layer="layer1")),
            target=5,
        ),
    ]
    for number, (each, result) in enumerate(zip(wanted, told["results"], strict=True)):
        assert result["class"] == "ring"
        assert result["recipe"] == each.recipe
        assert result["score"] == pytest.approx(float(each.score))
        array = np.load(io.BytesIO(page.get(f"/jobs/{job}/{number}/values.npy").content))
        assert np.array_equal(array, each.numpy())
        named = np.load(io.BytesIO(page.get(f"/jobs/{job}/{number}/values.npz").content))
        assert np.array_equal(named["values"], array)
        tensors = load_tensors(page.get(f"/jobs/{job}/{number}/values.safetensors").content)
        assert torch.equal(tensors["values"], each.values)
        query = 'renderer=overlay&at=original&download=&settings={"opacity":0.5,"colormap":"magma"}'
        drawn = page.get(f"/jobs/{job}/{number}?{query}")
        assert drawn.headers["content-disposition"].startswith("attachment")
        pixels = each.render("overlay", at="original", opacity=0.5, colormap="magma")[0]
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(drawn.content))), pixels)
    assert page.get(f"/jobs/{job}/3/values.npy").status_code == 404
    assert page.get(f"/jobs/{job}/0/values.exe").status_code == 404


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"layer": ["layer2"]}, "has no layer \"['layer2']\""),
        ({"layer": {"name": "layer2"}}, "has no layer"),
        ({"layer": 2.5}, "has no layer '2.5'"),
        ({"methods": []}, "choose a method, or write a formula"),
        ({"methods": [], "formulas": ["gradient()"] * 65}, "at most 64 methods and formulas"),
        ({"methods": [{"name": "grad_cam"}]}, "there is no method"),
        ({"methods": [], "formulas": [["gradient()"]]}, "a formula is a text"),
    ],
)
def test_a_question_of_any_kind_of_value_is_refused(page: Page, star: bytes, asked: dict[str, Any], told: str) -> None:
    question = {"model": 0, "picture": page.sent(star), "methods": ["grad_cam"]} | asked
    answer = page.post("/jobs", json=question)
    assert (answer.status_code, told in answer.json()["error"]) == (422, True), answer.text


def test_no_number_is_too_long_and_no_share_beyond_one(page: Page, star: bytes) -> None:
    job = page.asked(page.sent(star))
    page.done(job)
    for number in ("9" * 5000, "-1", "00", "\N{ARABIC-INDIC DIGIT ZERO}", "1"):
        answer = page.get(f"/jobs/{job}/{number}")
        assert (answer.status_code, answer.json()) == (404, {"error": "there is no such result"})
    for opacity in ("-5", "1.01", "NaN", "true"):
        query = f'renderer=overlay&settings={{"opacity":{opacity}}}'
        for place in ("0", "0/scale", "python"):
            answer = page.get(f"/jobs/{job}/{place}?{query}")
            assert answer.status_code == 422
            assert "opacity of overlay can't be" in answer.json()["error"]


def test_scales_tell_the_values_at_the_ends(page: Page, star: bytes, of_demo: Subject) -> None:
    job = page.asked(page.sent(star), methods=["grad_cam", "gradient"])
    page.done(job)
    each = cnnviz.explain(of_demo.model, Image.fromarray(demo.pictures().pictures[3]), "grad_cam")
    told = page.get(f'/jobs/{job}/0/scale?renderer=heatmap&settings={{"normalize":"image"}}').json()["scale"]
    peak = float(cnnviz.drawing.heat_and_peaks(each, cnnviz.drawing.Scale("image"))[1].max())
    assert (told["low"], told["high"]) == (0, pytest.approx(peak))
    assert told["colors"][0] == "#30123b"  # where turbo begins
    both = page.get(f"/jobs/{job}/0/scale?renderer=diverging").json()["scale"]
    assert both["low"] == -both["high"]
    assert page.get(f"/jobs/{job}/1/scale?renderer=panels").json()["scale"] is None


def test_the_python_makes_the_answers_again(
    page: Page, star: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "a 'star'\n\"#2\".png"
    question = {"methods": ["grad_cam"], "formulas": ["smoothgrad(samples=2) * 2"], "target": 5, "layer": "layer1"}
    job = page.asked(page.sent(star, name), **question)
    told = page.done(job)
    query = 'renderer=overlay&settings={"colormap":"cividis"}'
    program = page.get(f"/jobs/{job}/python?{query}").text
    monkeypatch.chdir(tmp_path)
    Path("program.py").write_text(program)
    Path(name).write_bytes(star)
    answers = runpy.run_path("program.py")["answers"]
    assert len(answers) == len(told["results"]) == 2
    for number, each in enumerate(answers.values()):
        array = np.load(io.BytesIO(page.get(f"/jobs/{job}/{number}/values.npy").content))
        assert np.array_equal(array, each.numpy())
    drawn = page.get(f"/jobs/{job}/0?{query}").content
    assert np.array_equal(np.asarray(Image.open("grad_cam.png")), np.asarray(Image.open(io.BytesIO(drawn))))


def test_deep_and_transparent_pictures_give_what_their_files_give(page: Page, tmp_path: Path, of_demo: Subject) -> None:
    ramp = np.linspace(0, 65535, 96 * 96).reshape(96, 96).astype(np.uint16)
    clear = np.dstack([demo.pictures().pictures[3], np.linspace(0, 255, 96 * 96).reshape(96, 96).astype(np.uint8)])
    for number, pixels in enumerate((ramp, clear)):
        path = tmp_path / f"{number}.png"
        path.write_bytes(as_png(pixels))
        job = page.asked(page.sent(path.read_bytes()), methods=["gradient"])
        page.done(job)
        array = np.load(io.BytesIO(page.get(f"/jobs/{job}/0/values.npy").content))
        assert np.array_equal(array, cnnviz.explain(of_demo.model, path, "gradient").numpy())


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ({"model": 1}, "no such model"),
        ({"model": "resnet50"}, "no such model"),
        ({"model": True}, "no such model"),
        ({"methods": []}, "choose a method"),
        ({"methods": ["grad_camm"]}, "there is no method 'grad_camm'"),
        ({"methods": [["grad_cam"]]}, "there is no method"),
        ({"methods": "grad_cam"}, "lists of texts"),
        ({"methods": ["grad_cam"] * 65}, "at most 64"),
        ({"target": 8}, "there is no class 8"),
        ({"target": "star"}, "there is no class star"),
        ({"target": -2}, "there is no class -2"),
        ({"layer": "fc"}, "no layer 'fc' that is a place for a map"),
        ({"layer": "../weights"}, "no layer"),
        ({"formulas": ["grad_camm()"]}, "grad_camm"),
        ({"formulas": [3]}, "a formula is a text"),
    ],
)
def test_what_can_not_be_asked_is_told_in_a_line(page: Page, star: bytes, question: Any, words: str) -> None:
    answer = page.post("/jobs", json={"model": 0, "picture": page.sent(star), "methods": ["gradient"]} | question)
    assert answer.status_code == 422
    assert words in answer.json()["error"]
    assert len(page.jobs.kept) == 0


def test_a_network_that_names_places_is_asked_about_a_class_where_it_is(
    star: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = cnnviz.load_model("demo-segmentation")
    page = Page([subject(model, {})])
    told = page.get("/choices").json()["models"][0]
    assert told["regions"]
    assert "decoder.0" in [each["name"] for each in told["layers"]]
    picture = page.sent(star)
    classes = page.done(page.asked(picture, kind="predict"))["answer"]["classes"]
    with torch.no_grad():
        inputs = demo.as_inputs(demo.pictures().pictures[3:4])
        named = model.module(inputs).argmax(1)
    shares = {index: float((named == index).float().mean()) for index in named.unique().tolist()}
    assert {each["index"]: pytest.approx(each["share"]) for each in classes} == shares
    assert (classes[0]["index"], classes[-1]["index"]) == (3, 8)  # the star, and the background behind it
    refused = page.post("/jobs", json={"model": 0, "picture": picture, "methods": ["grad_cam"]})
    assert "choose the class that is meant" in refused.json()["error"]
    job = page.asked(picture, target=3)
    (result,) = page.done(job)["results"]
    wanted = cnnviz.explain(model, inputs, "grad_cam", target=cnnviz.targets.region(3))
    assert result["class"] == "star"
    assert result["recipe"] == wanted.recipe
    array = np.load(io.BytesIO(page.get(f"/jobs/{job}/0/values.npy").content))
    assert np.allclose(array, wanted.numpy(), atol=1e-6)
    monkeypatch.chdir(tmp_path)
    Path("star.png").write_bytes(star)
    Path("program.py").write_text(page.get(f"/jobs/{job}/python").text)
    (answer,) = runpy.run_path("program.py")["answers"].values()
    assert np.array_equal(answer.numpy(), array)
    page.jobs.close()


@pytest.mark.parametrize("content", [b"{", b"[]", b"3", b"\xff", b"[" * 9000])
def test_what_is_no_question_is_refused(page: Page, content: bytes) -> None:
    assert page.post("/jobs", content=content).status_code == 422


@pytest.mark.parametrize(
    "query",
    [
        "renderer=nothing",
        "at=/etc/passwd",
        'renderer=overlay&settings={"nothing":1}',
        'renderer=overlay&settings={"opacity":"x"}',
        'renderer=overlay&settings={"opacity":2}',
        'renderer=overlay&settings={"colormap":"file"}',
        'renderer=segmentation&settings={"iterations":100000000}',
        "renderer=overlay&settings=[",
        "renderer=overlay&settings=[1]",
        "renderer=panels&at=original",
        "renderer=line",
    ],
)
def test_what_can_not_be_drawn_is_told_in_a_line(page: Page, star: bytes, query: str) -> None:
    job = page.asked(page.sent(star))
    page.done(job)
    answer = page.get(f"/jobs/{job}/0?{query}")
    assert answer.status_code == 422
    assert answer.json()["error"]


def test_formulas_are_read_while_they_are_typed(page: Page) -> None:
    told = page.post("/formula", json={"text": "guided_backprop() * upsmaple(grad_cam())"}).json()
    assert (told["start"], told["stop"]) == (20, 28)
    assert told["hint"] == "upsample"
    assert ">>>" not in told["error"]  # the page marks the place itself
    assert page.post("/formula", json={"text": "guided_backprop() * upsample(grad_cam())"}).json()["recipe"]
    for text in (
        "",
        "import os",
        "().__class__",
        "9**9**9**9",
        "x" * 3000,
        "rise(masks=10**12)",
        "rise(masks=400000)",
        "(" * 500,
    ):
        assert page.post("/formula", json={"text": text}).json()["error"], text[:40]


def test_a_fault_of_one_method_leaves_the_others(page: Page, star: bytes) -> None:
    told = page.done(page.asked(page.sent(star), methods=["grad_cam"], formulas=["grad_cam(layer='fc')"]))
    assert told["state"] == "done"
    assert told["results"][0]["error"] is None
    assert "layer 'fc'" in told["results"][1]["error"]
    assert "\n" not in told["results"][1]["error"]


# ---------------------------------------------------------------- jobs


def waiting(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.002)


def test_a_job_is_cancelled_between_passes_and_the_model_is_as_it_was(
    page: Page, star: bytes, of_demo: Subject
) -> None:
    inputs, picture = torch.zeros(1), page.sent(star)
    with unchanged("the job", lambda: state(of_demo.model.module, inputs)):
        job = page.asked(picture, methods=[], formulas=["rise(masks=50000)"])
        waiting(lambda: page.get(f"/jobs/{job}").json()["passed"] > 0)
        running = page.get(f"/jobs/{job}").json()
        assert page.post(f"/jobs/{job}/cancel").status_code == 200
        told = page.done(job)
    assert running["state"] == "running"
    assert 0 < running["share"] < 1
    assert (told["state"], told["results"], told["error"]) == ("cancelled", [], None)
    assert page.done(page.asked(picture))["state"] == "done"


def test_the_queue_is_bounded_and_one_job_runs_at_a_time(page: Page, star: bytes) -> None:
    hold, running, most = threading.Event(), [0], [0]

    def work(job: Job) -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        hold.wait(20)
        running[0] -= 1

    names = [page.jobs.submit(work) for _ in range(limits.WAITING)]
    answer = page.post("/jobs", json={"model": 0, "picture": page.sent(star), "methods": ["gradient"]})
    assert answer.status_code == 503
    assert "wait already" in answer.json()["error"]
    page.post(f"/jobs/{names[-1]}/cancel")
    hold.set()
    states = [page.done(name)["state"] for name in names]
    assert states == [*["done"] * (limits.WAITING - 1), "cancelled"]
    assert most == [1]


@pytest.mark.parametrize(
    "fault", [SystemExit(3), KeyError("x"), RuntimeError("a\nb"), MemoryError(), KeyboardInterrupt()]
)
def test_a_job_that_fails_ends_no_other(page: Page, fault: BaseException) -> None:
    def work(job: Job) -> None:
        raise fault

    told = page.done(page.jobs.submit(work))
    assert told["state"] == "failed"
    assert told["error"]
    assert "\n" not in told["error"]
    assert page.done(page.jobs.submit(lambda job: None))["state"] == "done"


def test_closing_ends_the_job_that_runs(page: Page, star: bytes) -> None:
    job = page.asked(page.sent(star), methods=[], formulas=["rise(masks=50000)"])
    waiting(lambda: page.get(f"/jobs/{job}").json()["passed"] > 0)
    page.jobs.close()
    assert page.jobs.kept[job].state == "cancelled"
    answer = page.post("/jobs", json={"model": 0, "picture": page.sent(star), "methods": ["gradient"]})
    assert answer.status_code == 503


def test_warnings_go_to_the_job_that_they_are_about(of_demo: Subject) -> None:
    dark = (demo.pictures().pictures[3].mean(2) * 16).astype(np.uint16)  # 12 bits in 16
    with warnings_by_thread():
        opened = Page([of_demo])
        with opened.client:
            told = opened.done(opened.asked(opened.sent(as_png(dark)), methods=["gradient", "grad_cam"]))
            light = opened.done(opened.asked(opened.sent(as_png(dark * 16)), methods=["gradient"]))
        opened.jobs.close()
    assert all("has 16 bits and values up to" in result["warnings"][0] for result in told["results"])
    assert light["results"][0]["warnings"] == []


def test_a_large_picture_is_shown_smaller_and_kept_whole(page: Page) -> None:
    large = np.zeros((96, 1500, 3), np.uint8)
    picture = page.sent(as_png(large))
    job = page.asked(picture)
    page.done(job)
    sizes = [
        Image.open(io.BytesIO(page.get(path).content)).size
        for path in (
            f"/pictures/{picture}",
            f"/jobs/{job}/0?at=original",
            f"/jobs/{job}/0?at=original&download=",
        )
    ]
    assert sizes == [(1024, 66), (1024, 66), (1500, 96)]


# ---------------------------------------------------------------- the command


def test_ctrl_c_ends_the_server_and_the_job_that_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[str] = []
    told: list[dict[str, Any]] = []
    serving = threading.Event()

    def person(address: str) -> None:
        home = address.partition("/?")[0]
        try:
            with httpx.Client(base_url=home, timeout=60) as client:
                key = re.search(r'name="cnnviz-page" content="([^"]+)"', client.get(address).text)
                assert key is not None
                client.headers.update({"Origin": home, "X-Cnnviz-Page": key[1]})
                picture = client.post("/example", json={}).json()["picture"]
                question = {"model": 0, "picture": picture, "formulas": ["rise(masks=50000)"]}
                job = client.post("/jobs", json=question).json()["job"]
                waiting(lambda: client.get(f"/jobs/{job}").json()["passed"] > 0)
                told.append(client.get(f"/jobs/{job}").json())
        finally:
            if serving.is_set():  # else it would end the tests
                os.kill(os.getpid(), signal.SIGINT)

    def browse(address: str) -> None:
        opened.append(address)
        threading.Thread(target=person, args=(address,)).start()

    monkeypatch.setattr("cnnviz.pages.explorer.server.webbrowser.open", browse)
    serving.set()
    try:
        status = main(["serve"])
    finally:
        serving.clear()
    assert status == 0
    assert told[0]["state"] == "running"
    assert not [thread for thread in threading.enumerate() if thread.name == "cnnviz explorer"]
    said = capsys.readouterr()
    assert said.out == f"{opened[0]}\n"
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{43}", opened[0])
    assert said.err.count("\n") == 1


def test_the_command_tells_what_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("cnnviz.cli.serve.find_spec", lambda name: None)
    assert main(["serve", "--no-open"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert 'pip install "cnnviz[serve]"' in said


def test_a_port_in_use_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["serve", "--no-open", "--port", str(port)]) == 2
    said = capsys.readouterr().err
    assert said == f"cnnviz: port {port} is in use; choose another with --port, or 0 for one that is free\n"


def test_weights_belong_to_one_network(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["serve", "--model", "demo", "--model", "demo-shortcut", "--weights", "x.pth", "--no-open"]
    assert main(words) == 2
    assert "--weights belongs to one network" in capsys.readouterr().err


def test_there_is_no_option_for_another_host(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--host", "0.0.0.0", "--no-open"]) == 2
    assert "--host" in capsys.readouterr().err
