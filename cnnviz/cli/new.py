"""The command that starts a plugin: a package that can be installed, with a method that works and its tests."""

from __future__ import annotations

import keyword
import re
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from cnnviz.cli.errors import print_line

Kind = Literal["attribution", "renderer", "metric", "synthesis"]
NAME = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*")
LONGEST = 60


def new(
    kind: Annotated[Kind, typer.Argument(help="What the package offers.", show_default=False)],
    name: Annotated[
        str,
        typer.Argument(help="Its name, such as my-cam; its method is my_cam.", metavar="NAME", show_default=False),
    ],
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="The new folder. Default: NAME.", metavar="FOLDER")
    ] = None,
) -> None:
    """Start a plugin: write a package that can be installed, with a method that works, its tests, README and CI."""

    from cnnviz.cli.new_files import package_files, write_folder
    from cnnviz.cli.shell_words import shell_line

    module = checked_name(kind, name)
    folder = Path(output or module.replace("_", "-"))
    write_folder(folder, package_files(kind, module))
    print_line(f"{folder} holds a package with the {kind} {module}, which works. Next:")
    place = str(folder) if folder.is_absolute() else f"./{folder.as_posix()}"
    print_line(f"  pip install -e {shell_line([f'{place}[test]'])}")
    print_line(f"  pytest {shell_line([str(folder)])}")
    print_line(f"  {next_command(kind, module)}")


def checked_name(kind: str, name: str) -> str:
    """The name of the module and the method. Raises ValueError for a name that can't be one, with the way out."""
    if len(name) > LONGEST:
        raise ValueError(f"a name of {len(name)} letters is too long; use {LONGEST} at most")
    if not NAME.fullmatch(name):
        near = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        near = near if NAME.fullmatch(near) else "my-cam"
        raise ValueError(
            f"{name!r} is no name of a package; use lower-case letters, digits and - between, such as {near}"
        )
    module = name.replace("-", "_")
    other = f"my-{name.replace('_', '-')}"
    if keyword.iskeyword(module):
        raise ValueError(f"{name!r} is a word of Python itself, and no module can have it; say {other}")
    if module in sys.stdlib_module_names or module == "tests" or _installed(module):
        raise ValueError(f"{name!r} is the name of a module that is there already, which it would hide; say {other}")
    from cnnviz.cli.new_files import words_of
    from cnnviz.registry.registry import registries

    if module in words_of(kind):
        raise ValueError(f"{name!r} is a name that the code of the package needs itself; say {other}")

    for registry in registries:
        if module in registry:
            raise ValueError(f"the {registry.kind} {module!r} is taken by {registry.origin(module)}; say {other}")
    return module


def _installed(module: str) -> bool:
    """True for a module that can be imported; a mere folder of that name is none. Nothing is imported."""
    from importlib.util import find_spec

    spec = find_spec(module)
    return spec is not None and spec.origin is not None


def next_command(kind: str, name: str) -> str:
    """A command line that uses the method."""
    return {
        "attribution": f"cnnviz explain cat.jpg --method {name} -o map.png",
        "renderer": f"cnnviz explain cat.jpg --render {name} -o map.png",
        "metric": f"cnnviz evaluate cat.jpg --metric {name}",
        "synthesis": f"cnnviz synthesize {name} --start cat.jpg --target star -o made.png",
    }[kind]
