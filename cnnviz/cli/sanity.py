"""The command that tells what maps of a method can be trusted for, in a table for its README."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnnviz.cli.completion import attribution_names
from cnnviz.cli.documents import AnswersJson, print_document
from cnnviz.cli.errors import Interrupted, exit_status, print_failure, print_line, print_note
from cnnviz.cli.method_names import method_names
from cnnviz.cli.method_options import named_methods
from cnnviz.cli.options import FindOptions, Limit, ModelOptions, OverwriteOptions, Quiet, answer_option, sharing

if TYPE_CHECKING:
    from cnnviz.cli.prepared import PreparedCommand
    from cnnviz.testing.sanity.cases import Case

BUNDLED = "demo"
MOST = {False: (8, 10.0), True: (40, 120.0)}
"""How many drawn pictures, and the seconds of a row: as it is, and with ``--thorough``."""
KINDS = (".md", ".json")


@sharing(ModelOptions, FindOptions, OverwriteOptions)
def sanity(
    context: typer.Context,
    options: Mapping[str, Any],
    method: Annotated[
        list[str],
        answer_option(
            "The method that is checked, a formula, or several with commas between.",
            "--method",
            "-m",
            metavar="NAME",
            autocompletion=attribution_names,
        ),
    ],
    pictures: Annotated[
        list[str] | None,
        answer_option("Photographs for --model, in a folder or a file; repeatable.", metavar="FOLDER|FILE"),
    ] = None,
    thorough: Annotated[
        bool, answer_option("More pictures: minutes for each method, in place of seconds.", "--thorough")
    ] = False,
    seconds: Annotated[
        float | None,
        answer_option(
            "A row takes as many pictures as fit this time, and the first in any case. Default: 10, or 120 with"
            " --thorough.",
            metavar="NUMBER",
        ),
    ] = None,
    output: Annotated[
        Path | None, answer_option("Also write it: .md or .json.", "--output", "-o", metavar="FILE")
    ] = None,
    json: AnswersJson = False,
    limit: Limit = None,
    quiet: Quiet = False,
) -> int:
    """Tell what a method's maps can be trusted for: a verdict and a table for its README, in Markdown.

    Bundled networks are asked about drawn pictures, offline: do the maps lie on the shape, on the tag that a shortcut
    reads, do they depend on weights and labels? Methods that read attention are asked with --model demo-transformer.
    With --model and --pictures your own network is asked instead: do maps depend on its weights, does its score follow
    them? A method's settings are options too: --layer layer2.
    """
    from cnnviz.cli.outputs import check_folder
    from cnnviz.cli.places import settle
    from cnnviz.cli.prepared import prepared
    from cnnviz.cli.progress import progress
    from cnnviz.images.writing import write
    from cnnviz.testing.sanity.asking import ask
    from cnnviz.testing.sanity.page import document, markdown

    if seconds is not None and not seconds > 0:
        raise ValueError(f"--seconds {seconds:g} is no time; give a number above 0")
    names = method_names(method, "")
    command = prepared(context, context.args, named_methods(names, context.args), options)
    if command.arguments:
        raise ValueError(f"sanity takes no {command.arguments[0]!r}; name pictures with --pictures")
    if output is not None:
        if output.suffix.lower() not in KINDS:
            raise ValueError(f"{output} has no suffix of a page; use {' or '.join(KINDS)}")
        check_folder(output)
        settle([output], [*command.reads, *map(Path, pictures or [])], options)
    drawn, most = MOST[thorough]
    most = seconds or most
    cases, absent = _cases(command, drawn, pictures or [], options, quiet)
    methods = command.attributions(names)
    rows = sum(len(methods) for _ in cases)
    if not quiet:
        print_note(f"{rows} rows; each ends with the pictures that are under way after {most:g} s")
    try:
        with progress("checking", quiet) as step, _quick_arithmetic():
            found = ask(methods, cases, most, step)
    except KeyboardInterrupt:
        raise Interrupted("nothing was written") from None
    left_out = [entry for entry in found.left_out if entry.method in methods]
    for entry in left_out:
        print_failure(f"{entry.method}, {entry.part} of {entry.network}: left out: {entry.reason}")
    line = _line(names, context.args, pictures or [], options, thorough, seconds)
    told = document(found, methods, line)
    page = markdown(found, methods, line)
    if json:
        print_document(told)
    elif not quiet:
        for text in page.splitlines():
            print_line(text)
    if output is not None:
        write(output, (page if output.suffix.lower() == ".md" else _json(told)).encode())
    return exit_status(rows + absent, len(left_out) + absent)


def _json(told: Any) -> str:
    import json

    return json.dumps(told, indent=1) + "\n"


def _cases(
    command: PreparedCommand, drawn: int, pictures: Sequence[str], options: Mapping[str, Any], quiet: bool
) -> tuple[list[Case], int]:
    """What is asked: bundled networks about drawn pictures, or the network that was named about pictures of one's own.

    And how many of the paths are not there.
    """
    from cnnviz.demo import TRANSFORMER
    from cnnviz.testing.sanity import cases

    if not pictures:
        parts = {BUNDLED: cases.DRAWN, TRANSFORMER: cases.ATTENDING}.get(options["model"])
        if parts is None:
            raise ValueError(f"{options['model']} is asked about pictures of its own; give --pictures FOLDER")
        return [cases.drawn_case(part, name, drawn) for part, name in parts.items()], 0
    import torch

    from cnnviz.cli.picture_files import picture_files

    files = picture_files(pictures, {**options, "quiet": quiet})
    inputs = [command.read(path) for path in files.paths]
    size = inputs[0].shape
    for path, each in zip(files.paths, inputs, strict=True):
        if each.shape != size:
            raise ValueError(
                f"the pictures need one size: {files.paths[0]} is {tuple(size)}, {path} is {tuple(each.shape)}; "
                "give --size, or leave --preprocess whole out"
            )
    first = next(command.model.module.parameters(), torch.zeros(()))
    stacked = torch.stack(inputs).to(first.device, first.dtype if first.is_floating_point() else None)
    return cases.own_cases(command.model.name, command.model.module, stacked), len(files.absent)


@contextmanager
def _quick_arithmetic() -> Iterator[None]:
    """Gradients of random weights fade to numbers that slow a CPU tenfold; they count as zero meanwhile."""
    import torch

    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _line(
    names: Sequence[str],
    words: Sequence[str],
    pictures: Sequence[str],
    options: Mapping[str, Any],
    thorough: bool,
    seconds: float | None,
) -> str:
    """The command line that makes the page again."""
    from cnnviz.cli.shell_words import shell_line

    parts = ["cnnviz", "sanity", "--method", ",".join(names), *words]
    if options["model"] != BUNDLED:
        parts += ["--model", options["model"]]
    parts += [part for picture in pictures for part in ("--pictures", picture)]
    parts += ["--thorough"] if thorough else []
    parts += [f"--seconds={seconds:g}"] if seconds is not None else []
    return shell_line(parts)
