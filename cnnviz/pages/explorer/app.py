"""The server's answers: the page, pictures that are sent, jobs, and what they found."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any
from urllib.parse import quote

from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from cnnviz import demo
from cnnviz.explanations.explanation import Explanation
from cnnviz.images.reading import read_content
from cnnviz.pages.explorer import drawn
from cnnviz.pages.explorer.asking import Picture, Question, Result, formula_told, predicting, read_question
from cnnviz.pages.explorer.guard import Guard, Keys
from cnnviz.pages.explorer.jobs import Job, Jobs, reason
from cnnviz.pages.explorer.limits import PICTURE_BYTES, PICTURES, UPLOAD, Kept, Refused
from cnnviz.pages.explorer.offered import (
    Subject,
    offered_methods,
    offered_renderers,
)
from cnnviz.pages.explorer.python_code import python_of, stem
from cnnviz.pages.explorer.sent import body, json_object, view
from cnnviz.pages.shared.templates import page_file, template
from cnnviz.pages.shared.texts import shown

EXAMPLE = 3
"""Of the bundled pictures: the star."""
Handler = Callable[[Request], Awaitable[Response]]


class Explorer:
    """The state of one start: models, pictures that were sent, jobs."""

    def __init__(self, subjects: Sequence[Subject], keys: Keys, jobs: Jobs):
        self.subjects, self.keys, self.jobs = subjects, keys, jobs
        self.pictures: Kept[Picture] = Kept("picture", PICTURES, PICTURE_BYTES)
        self.methods, self.renderers = offered_methods(), offered_renderers()  # loads all plugins, before anybody waits
        # few at a time: each may take the memory of the largest picture
        self._reading, self._drawing = asyncio.Lock(), asyncio.Semaphore(2)

    async def page(self, request: Request) -> Response:
        """The page. Its cookie lets what it loads in."""
        page = template("explorer", "explorer.html.j2")
        response = HTMLResponse(page.render(version=version("cnnviz"), key=self.keys.page, upload=UPLOAD))
        response.set_cookie(self.keys.cookie, self.keys.token, httponly=True, samesite="strict", path="/")
        return response

    async def style(self, request: Request) -> Response:
        return Response(page_file("explorer", "explorer.css"), media_type="text/css")

    async def script(self, request: Request) -> Response:
        return Response(page_file("explorer", "explorer.js"), media_type="text/javascript")

    async def choices(self, request: Request) -> Response:
        """What can be chosen."""
        models = [subject.told() for subject in self.subjects]
        return JSONResponse({"models": models, "methods": self.methods, "renderers": self.renderers})

    async def send_picture(self, request: Request) -> Response:
        """Keep a picture: the body is the content of its file."""
        content = await body(request, UPLOAD, "the picture")
        name = request.query_params.get("name", "")[-200:].replace("\\", "/").rpartition("/")[2] or "picture.png"
        async with self._reading:
            try:
                image = await run_in_threadpool(read_content, content, name)
            except Exception as error:  # memory may run out, too
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
        asked = await json_object(request)
        return JSONResponse(await run_in_threadpool(formula_told, str(asked.get("text", ""))))

    async def send_job(self, request: Request) -> Response:
        """Put a question into the queue."""
        asked = await json_object(request)
        number, picture = asked.get("model"), asked.get("picture")
        if type(number) is not int or not 0 <= number < len(self.subjects):
            raise Refused(422, "there is no such model; those of the command line can be chosen")
        subject, kept = self.subjects[number], self.pictures[str(picture)]
        if asked.get("kind") == "predict":
            name = self.jobs.submit(predicting(subject, kept))
        else:
            question = await run_in_threadpool(read_question, asked, subject, kept)
            name = self.jobs.submit(question.ask, question)
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
        result, how = self._result(request), view(request)
        is_kept = "download" in request.query_params
        most = None if is_kept else drawn.SHOWN
        draw = partial(drawn.drawn, _explained(result), at=how.at, most=most)
        content = await self._answered(lambda: draw(*how.of(_explained(result))))
        if is_kept:
            return _download(content, "image/png", f"{stem(result.method)}.png")
        return Response(content, media_type="image/png")

    async def scale(self, request: Request) -> Response:
        """What the colours of a drawn result mean."""
        result, how = self._result(request), view(request)
        told = await self._answered(lambda: drawn.scale(_explained(result), *how.of(_explained(result))))
        return JSONResponse({"scale": told})

    async def values(self, request: Request) -> Response:
        """The values of a result as a file."""
        result, suffix = self._result(request), "." + request.path_params["suffix"]
        if suffix not in drawn.VALUES:
            raise Refused(404, f"values are written as {', '.join(drawn.VALUES)}")
        content = await self._answered(lambda: drawn.values_file(_explained(result), suffix))
        return _download(content, "application/octet-stream", stem(result.method) + suffix)

    async def python(self, request: Request) -> Response:
        """The Python that makes the answers of a job again."""
        question = self._job(request).question
        if not isinstance(question, Question):
            raise Refused(404, "there is no Python for this job")
        how = view(request)

        def drawing(explanation: Explanation) -> tuple[str, dict[str, Any], str]:
            renderer, settings = how.of(explanation)
            return renderer.name, settings, how.at

        text = await self._answered(lambda: python_of(question, drawing))
        if "download" in request.query_params:
            return _download(text.encode(), "text/plain; charset=utf-8", "answers.py")
        return Response(text, media_type="text/plain")

    async def _answered(self, work: Callable[[], Any]) -> Any:
        """What the work gives, beside other requests. Raises Refused (422) for what can't be drawn so."""
        async with self._drawing:
            try:
                return await run_in_threadpool(work)
            except Exception as error:
                raise Refused(422, reason(error)) from error

    def _keep(self, picture: Picture) -> Response:
        width, height = picture.image.size
        name = self.pictures.add(picture, width * height * len(picture.image.getbands()))
        return JSONResponse({"picture": name, "name": shown(picture.name), "width": width, "height": height}, 201)

    def _job(self, request: Request) -> Job:
        return self.jobs.kept[request.path_params["job"]]

    def _result(self, request: Request) -> Result:
        question, number = self._job(request).question, request.path_params["number"]
        results = question.results if isinstance(question, Question) else []
        found = dict(zip(map(str, range(len(results))), results, strict=True)).get(number)
        if found is None or found.explanation is None:
            raise Refused(404, "there is no such result")
        return found


def explorer(subjects: Sequence[Subject], keys: Keys, jobs: Jobs) -> ASGIApp:
    """The application that answers the page of these models."""
    made = Explorer(subjects, keys, jobs)
    result = "/jobs/{job}/{number}"
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
    app = Starlette(
        routes=[Route(path, handler, methods=[method]) for path, handler, method in routes],
        exception_handlers={Refused: _refused, HTTPException: _http, Exception: _unexpected},
    )
    return Guard(app, keys)  # around everything, errors too


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return JSONResponse({"error": error.reason}, error.status)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code)


async def _unexpected(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": reason(error)}, 500)


def _explained(result: Result) -> Explanation:
    assert result.explanation is not None  # _result looks
    return result.explanation


def _download(content: bytes, media_type: str, name: str) -> Response:
    headers = {"Content-Disposition": f"attachment; filename={quote(name)}"}
    return Response(content, media_type=media_type, headers=headers)
