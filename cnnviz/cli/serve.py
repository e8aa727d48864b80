"""The command that starts the explorer."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Annotated, Any

from cnnviz.cli.completion import MODELS, among
from cnnviz.cli.errors import print_line, print_note
from cnnviz.cli.options import Limit, ModelOptions, answer_option, model_option, sharing

OF_ONE_MODEL = ("weights", "num_classes", "key", "prefix", "mean", "std", "size", "categories")
"""Options that belong to one network."""


@sharing(ModelOptions)
def serve(
    model: Annotated[
        list[str] | None,
        model_option(
            "A network that the page offers: demo, a name of torchvision or timm, package.module:factory, or a file."
            " Repeatable. Default: demo.",
            "--model",
            metavar="NETWORK",
            autocompletion=among(MODELS),
        ),
    ] = None,
    port: Annotated[
        int, answer_option("Where the page is: http://127.0.0.1:PORT. 0 takes one that is free.", min=0, max=65535)
    ] = 0,
    open_page: Annotated[bool, answer_option("Open the page in the browser.", "--open/--no-open")] = True,
    limit: Limit = None,
    *,
    options: dict[str, Any],
) -> None:
    """Explain pictures in the browser: drop one, choose class, layer and methods, see the maps.

    The page is for this machine alone: the server listens on 127.0.0.1, and answers only who has the address with the
    token, which is new at each start. Ctrl-C ends it.
    """
    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(
            f'cnnviz serve needs {" and ".join(missing)}, not installed here: pip install "cnnviz[serve]"'
        )
    names = list(dict.fromkeys(model or ["demo"]))
    of_one = next((name for name in OF_ONE_MODEL if options[name] is not None), None)
    if of_one is not None and len(names) > 1:
        raise ValueError(
            f"--{of_one.replace('_', '-')} belongs to one network, and {len(names)} are named; serve that one alone"
        )
    from cnnviz.cli import value_parsing
    from cnnviz.cli.prepared import loaded
    from cnnviz.pages.explorer.offered import subject
    from cnnviz.pages.explorer.server import bound
    from cnnviz.pages.explorer.server import serve as answer

    listening = bound(port)  # first: a port in use is told before a network loads
    try:
        given = {name: options[name] for name in OF_ONE_MODEL if options[name] is not None}
        given |= {"trust_model": True} if options["trust_model"] else {}
        given |= {name: value_parsing.numbers(given[name], f"--{name}") for name in ("mean", "std") if name in given}
        given |= {"size": value_parsing.size(given["size"])} if "size" in given else {}
        whole = options["preprocess"] == "whole"
        subjects = [subject(loaded(options | {"model": name}), given, whole) for name in names]
    except BaseException:
        listening.close()
        raise

    def told(address: str) -> None:
        print_line(address)
        if sys.stdout is not None:
            sys.stdout.flush()  # whoever reads it by a pipe waits for it
        print_note("the page is at this address; the token in it is new at each start; Ctrl-C ends it")

    answer(subjects, listening, open_page, told)
