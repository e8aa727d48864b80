"""The files of a new plugin package, and how they come into a folder: all of them or none."""

from __future__ import annotations

import ast
import shutil
import tempfile
from collections.abc import Mapping
from datetime import date
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, FunctionLoader, StrictUndefined

from cnnviz.cli.new import next_command

SUMMARIES = {
    "attribution": "A class activation map",
    "renderer": "A picture that is lit where a map is strong",
    "metric": "How much of the evidence lies on its strongest places",
    "synthesis": "A picture that is changed until a network sees another class",
}
USES = {
    "attribution": 'cnnviz.explain(model, "cat.jpg", "{name}").save("map.png")',
    "renderer": 'cnnviz.explain(model, "cat.jpg", "grad_cam").save("map.png", "{name}")',
    "metric": 'cnnviz.evaluate(cnnviz.explain(model, "cat.jpg", "grad_cam"), "{name}")',
    "synthesis": 'cnnviz.synthesize(model, "{name}", start="cat.jpg", target="star").save("made.png")',
}


def package_files(kind: str, name: str) -> dict[str, str]:
    """Their texts, by path in the package. ``name`` is the method's and the module's."""
    registry = "syntheses" if kind == "synthesis" else f"{kind}s"
    about = {
        "kind": kind,
        "name": name,
        "dist": name.replace("_", "-"),
        "group": registry,
        "summary": SUMMARIES[kind],
        "minor": ".".join(version("cnnviz").split(".")[:2]),
        "year": date.today().year,
        "use": f'import cnnviz\n\nmodel = cnnviz.load_model("demo")\n{USES[kind].format(name=name)}\n',
        "command": next_command(kind, name),
    }
    places = {
        "pyproject.toml": "pyproject.toml.j2",
        "README.md": "README.md.j2",
        "LICENSE": "LICENSE.j2",
        ".gitignore": "gitignore.j2",
        ".github/workflows/tests.yml": "ci.yml.j2",
        f"src/{name}/__init__.py": f"{kind}.py.j2",
        f"tests/test_{name}.py": f"test_{kind}.py.j2",
    }
    # GitHub's files have {{ }} of their own
    templates = Environment(
        loader=FunctionLoader(lambda place: (files("cnnviz.cli") / "new_package" / place).read_text("utf-8")),
        undefined=StrictUndefined,
        autoescape=False,  # of code, not of HTML
        variable_start_string="<<",
        variable_end_string=">>",
        block_start_string="<%",
        block_end_string="%>",
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    texts = {place: templates.get_template(template).render(about) for place, template in places.items()}
    return texts | {f"src/{name}/py.typed": ""}


def words_of(kind: str) -> set[str]:
    """The names that the code of a new package uses; a method of one of these names would take its place."""
    names: set[str] = set()
    for place, text in package_files(kind, "name_of_the_method").items():
        for node in ast.walk(ast.parse(text)) if place.endswith(".py") else ():
            names |= {str(getattr(node, each)) for each in ("id", "arg", "asname", "name") if hasattr(node, each)}
    return names


def write_folder(folder: Path, texts: Mapping[str, str]) -> None:
    """Make the folder with these files. It is made beside its place and renamed, so that it is never there in part.

    Raises FileExistsError where something is there already, and OSError where nothing can be written.
    """
    if folder.exists() or folder.is_symlink():
        raise FileExistsError(f"{folder} is there already, and nothing is written into it; name another folder with -o")
    parent = folder.absolute().parent
    if not parent.is_dir():
        raise FileNotFoundError(f"there is no folder {parent}; make it first, or name another with -o")
    try:
        beside = Path(tempfile.mkdtemp(prefix=".cnnviz-new-", dir=parent))
    except OSError as error:  # of a kind of its own in each file system
        reason = f"nothing can be written in the folder {parent}; name another folder with -o"
        raise (PermissionError if isinstance(error, PermissionError) else OSError)(reason) from None
    try:
        made = beside / "package"
        for place, text in texts.items():
            path = made / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8", newline="\n")
        made.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
