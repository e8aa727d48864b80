"""The server's answers: the page, pictures that are sent, jobs, and what they found."""

from __future__ import annotations

import io
import json
from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import version
from importlib.resources import files
from typing import Any
from urllib.parse import quote

import anyio
from jinja2 import Environment, StrictUndefined
from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from cnnviz import demo
from cnnviz.images.reading import read_content
from cnnviz.pages.explorer import drawn
from cnnviz.pages.explorer.asking import Picture, Question, Result, formula_told, predicting, read_question
from cnnviz.pages.explorer.guard import Guard, Keys
from cnnviz.pages.explorer.jobs import Job, Jobs, reason
from cnnviz.pages.explorer.limits import PICTURE_BYTES, PICTURES, QUESTION, UPLOAD, Kept, Refused
from cnnviz.pages.explorer.offered import (
    Subject,
    checked_settings,
    offered_methods,
    offered_renderers,
    usual_settings,
)
from cnnviz.pages.explorer.python_code import python_of
from cnnviz.registry.registry import renderers

EXAMPLE = 3
"""Of the bundled pictures: the star."""
Handler = Callable[[Request], Awaitable[Response]]


class Explorer:
    """The state of one start: models, pictures that were sent, jobs."""

    def __init__(self, subjects: Sequence[Subject], keys: Keys, jobs: Jobs):
        self.subjects, self.keys, self.jobs = subjects, keys, jobs
        self.pictures: Kept[Picture] = Kept("picture", PICTURES, PICTURE_BYTES)
        self._reading = anyio.Lock()  # one at a time: each may take the memory of the largest picture

    async def page(self, request: Request) -> Response:
        """The page. Its cookie lets what it loads in."""
        template = _text("explorer.html.j2")
        page = Environment(autoescape=True, undefined=StrictUndefined).from_string(template)
        response = HTMLResponse(page.render(version=version("cnnviz"), key=self.keys.page, upload=UPLOAD))
        response.set_cookie(self.keys.cookie, self.keys.token, httponly=True, samesite="strict", path="/")
        return response

    async def style(self, request: Request) -> Response:
        return Response(_text("explorer.css"), media_type="text/css")

    async def script(self, request: Request) -> Response:
        return Response(_text("explorer.js"), media_type="text/javascript")

    async def choices(self, request: Request) -> Response:
        """What can be chosen."""
        methods, drawing = await run_in_threadpool(lambda: (offered_methods(), offered_renderers()))
        models = [subject.told() for subject in self.subjects]
        return JSONResponse({"models": models, "methods": methods, "renderers": drawing})

    async def send_picture(self, request: Request) -> Response:
        """Keep a picture: the body is the content of its file."""
        content = await _body(request, UPLOAD, "the picture")
        name = request.query_params.get("name", "")[-200:].replace("\\", "/").rpartition("/")[2] or "picture.png"
        async with self._reading:
            try:
                image = await run_in_threadpool(read_content, content, name)
            except ValueError as error:
                raise Refused(422, reason(error)) from error
        return self._keep(Picture(image, name))

    async def send_example(self, request: Request) -> Response:
        """Keep one of the bundled pictures."""
        pixels = await run_in_threadpool(lambda: demo.pictures().pictures[EXAMPLE])
        return self._keep(Picture(Image.fromarray(pixels), "star.png"))

    async def picture(self, request: Request) -> Response:
        """A picture that was sent, to look at."""
        kept = self.pictures[request.path_params["picture"]]
        return Response(await run_in_threadpool(drawn.shown, kept.image), media_type="image/png")

    async def picture_file(self, request: Request) -> Response:
        """The picture itself, for the Python that reads it."""
        kept, stream = self.pictures[request.path_params["picture"]], io.BytesIO()
        await run_in_threadpool(kept.image.save, stream, "PNG")
        return _download(stream.getvalue(), "image/png", "picture.png")

    async def formula(self, request: Request) -> Response:
        """How a formula reads, or what is wrong with it and where."""
        asked = await _json(request)
        return JSONResponse(await run_in_threadpool(formula_told, str(asked.get("text", ""))))

    async def send_job(self, request: Request) -> Response:
        """Put a question into the queue."""
        asked = await _json(request)
        number, picture = asked.get("model"), asked.get("picture")
        if type(number) is not int or not 0 <= number < len(self.subjects):
            raise Refused(422, "there is no such model; those of the command line can be chosen")
        subject, kept = self.subjects[number], self.pictures[str(picture)]
        if asked.get("kind") == "predict":
            name = self.jobs.submit(predicting(subject, kept))
        else:
            question = await run_in_threadpool(read_question, asked, subject, kept)
            name = self.jobs.submit(question.ask)
            self.jobs.kept[name].question = question
        return JSONResponse({"job": name}, 202)

    async def job(self, request: Request) -> Response:
        """How far a job is, and what it has found."""
        job = self._job(request)
        told = job.told()
        if isinstance(job.question, Question):
            told["results"] = [result.told() for result in [*job.question.results]]
        else:
            told["answer"] = job.answer
        return JSONResponse(told)

    async def cancel(self, request: Request) -> Response:
        """End a job."""
        self.jobs.cancel(request.path_params["job"])
        return JSONResponse({})

    async def drawn(self, request: Request) -> Response:
        """A result as a picture."""
        result, settings, name, at = self._result(request), _settings(request), _renderer(request), _at(request)

        def draw() -> bytes:
            assert result.explanation is not None
            renderer = renderers[name or result.explanation.usual_renderer]
            return drawn.drawn(result.explanation, renderer, _of(renderer, settings, name), at)

        content = await _answered(draw)
        if "download" in request.query_params:
            return _download(content, "image/png", f"{_stem(result)}.png")
        return Response(content, media_type="image/png")

    async def scale(self, request: Request) -> Response:
        """What the colours of a drawn result mean."""
        result, settings, name = self._result(request), _settings(request), _renderer(request)

        def told() -> dict[str, Any]:
            assert result.explanation is not None
            renderer = renderers[name or result.explanation.usual_renderer]
            chosen = _of(renderer, settings, name)
            return {"renderer": renderer.name, "scale": drawn.scale(result.explanation, renderer, chosen)}

        return JSONResponse(await _answered(told))

    async def values(self, request: Request) -> Response:
        """The values of a result as a file."""
        result, suffix = self._result(request), "." + request.path_params["suffix"]
        if suffix not in drawn.VALUES:
            raise Refused(404, f"values are written as {', '.join(drawn.VALUES)}")
        content = await _answered(lambda: drawn.values_file(result.explanation, suffix))  # type: ignore[arg-type]
        return _download(content, "application/octet-stream", _stem(result) + suffix)

    async def python(self, request: Request) -> Response:
        """The Python that makes the answers of a job again."""
        question = self._job(request).question
        if not isinstance(question, Question):
            raise Refused(404, "there is no Python for this job")
        settings, name, at = _settings(request), _renderer(request), _at(request)
        given = checked_settings(renderers[name], settings) if name is not None else {}
        text = python_of(question, name, given, at)
        if "download" in request.query_params:
            return _download(text.encode(), "text/plain; charset=utf-8", "answers.py")
        return Response(text, media_type="text/plain")

    def _keep(self, picture: Picture) -> Response:
        width, height = picture.image.size
        name = self.pictures.add(picture, width * height * len(picture.image.getbands()))
        return JSONResponse({"picture": name, "name": picture.name, "width": width, "height": height}, 201)

    def _job(self, request: Request) -> Job:
        return self.jobs.kept[request.path_params["job"]]

    def _result(self, request: Request) -> Result:
        question, number = self._job(request).question, request.path_params["number"]
        results = question.results if isinstance(question, Question) else []
        if not number < len(results) or results[number].explanation is None:
            raise Refused(404, "there is no such result")
        found: Result = results[number]
        return found


def explorer(subjects: Sequence[Subject], keys: Keys, jobs: Jobs) -> Starlette:
    """The application that answers the page of these models."""
    made = Explorer(subjects, keys, jobs)
    result = "/jobs/{job}/{number:int}"
    routes: list[tuple[str, Handler, str]] = [
        ("/", made.page, "GET"),
        ("/explorer.css", made.style, "GET"),
        ("/explorer.js", made.script, "GET"),
        ("/choices", made.choices, "GET"),
        ("/pictures", made.send_picture, "POST"),
        ("/example", made.send_example, "POST"),
        ("/pictures/{picture}", made.picture, "GET"),
        ("/pictures/{picture}/file", made.picture_file, "GET"),
        ("/formula", made.formula, "POST"),
        ("/jobs", made.send_job, "POST"),
        ("/jobs/{job}", made.job, "GET"),
        ("/jobs/{job}/cancel", made.cancel, "POST"),
        ("/jobs/{job}/python", made.python, "GET"),
        (result, made.drawn, "GET"),
        (f"{result}/scale", made.scale, "GET"),
        (f"{result}/values.{{suffix}}", made.values, "GET"),
    ]
    return Starlette(
        routes=[Route(path, handler, methods=[method]) for path, handler, method in routes],
        middleware=[Middleware(Guard, keys=keys)],
        exception_handlers={Refused: _refused, HTTPException: _http, Exception: _unexpected},
    )


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return JSONResponse({"error": error.reason}, error.status)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code)


async def _unexpected(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": reason(error)}, 500)


async def _body(request: Request, most: int, what: str) -> bytes:
    """What was sent. Raises Refused (413) as soon as it is too long, whatever was announced."""
    refusal = Refused(413, f"{what} has more than the {most:,} bytes that are taken")
    if int(request.headers.get("content-length", "0") or 0) > most:
        raise refusal
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > most:
            raise refusal
    if not content:
        raise Refused(422, f"{what} is empty")
    return bytes(content)


async def _json(request: Request) -> dict[str, Any]:
    content = await _body(request, QUESTION, "the question")
    try:
        asked = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Refused(422, "what was sent is no JSON") from error
    if not isinstance(asked, dict):
        raise Refused(422, "what was sent is no JSON object")
    return asked


async def _answered(work: Callable[[], Any]) -> Any:
    """What the work gives, beside the others. Raises Refused (422) for what can't be drawn so."""
    try:
        return await run_in_threadpool(work)
    except Exception as error:
        raise Refused(422, reason(error)) from error


def _settings(request: Request) -> Any:
    text = request.query_params.get("settings", "{}")
    try:
        return json.loads(text) if len(text) <= QUESTION else None
    except (ValueError, RecursionError) as error:
        raise Refused(422, "the settings are no JSON") from error


def _renderer(request: Request) -> str | None:
    """The renderer that is named; None for the method's own."""
    name = request.query_params.get("renderer") or None
    if name is not None and name not in renderers:
        raise Refused(422, f"there is no renderer {name[:80]!r}")
    return name


def _of(renderer: Any, settings: Any, name: str | None) -> dict[str, Any]:
    """The settings of the renderer; of a method's own the usual ones."""
    return usual_settings(renderer) if name is None else checked_settings(renderer, settings)


def _at(request: Request) -> Any:
    at = request.query_params.get("at", "input")
    if at not in ("input", "original"):
        raise Refused(422, "pictures are drawn at input or at original")
    return at


def _stem(result: Result) -> str:
    kept = "".join(
        letter if letter.isascii() and (letter.isalnum() or letter in "_-") else "-" for letter in result.method
    )
    return kept.strip("-")[:60] or "answer"


def _download(content: bytes, media_type: str, name: str) -> Response:
    headers = {"Content-Disposition": f"attachment; filename={quote(name)}"}
    return Response(content, media_type=media_type, headers=headers)


def _text(name: str) -> str:
    return (files("cnnviz.pages.explorer") / name).read_text("utf-8")
