"""Who may import whom: the core goes one way and names no method, plugins see only what is public."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

import cnnviz

ROOT = Path(__file__).parents[2]
ROOMS = [
    {"images"},
    {"engine"},
    {"models", "incremental"},
    {"demo"},
    {"run"},
    {"registry"},
    {"formulas"},
    {"explanations"},
    {"drawing"},
    {"feature_visualization"},
    {"tasks"},
    {"datasets"},
    {"testing"},
    {"pages"},
    {"cli"},
]
"""From the lowest to the highest. A room imports lower ones only; rooms of one level do not know each other."""
FACES = {"__init__.py", "__main__.py", "objectives.py", "targets.py"}
"""Files of the package that belong to no room: they define nothing."""
EXCEPTION = "registry/protocols.py"
"""Names the argument types of its five protocols, which lie above it."""


def room_files() -> list[Path]:
    return [file for file in (ROOT / "cnnviz").rglob("*.py") if file.parent != ROOT / "cnnviz"]


def room_of(file: Path) -> str:
    return file.relative_to(ROOT / "cnnviz").parts[0]


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


@cache
def imported(file: Path, everywhere: bool = False) -> set[str]:
    """Full names of what a file imports when it is loaded; everywhere: inside functions and for types as well."""
    tree = parsed(file)
    nodes = list(ast.walk(tree)) if everywhere else list(when_loaded(tree))
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def when_loaded(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        typing_only = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
        if not typing_only and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child
            yield from when_loaded(child)


def test_every_file_is_in_a_room_that_says_what_belongs_there() -> None:
    rooms = {room for level in ROOMS for room in level}
    assert {file.name for file in (ROOT / "cnnviz").glob("*.py")} == FACES
    assert {room_of(file) for file in room_files()} == rooms
    assert len(rooms) <= 16
    for room in rooms:
        assert ast.get_docstring(ast.parse((ROOT / "cnnviz" / room / "__init__.py").read_text())), room


def test_imports_go_one_way() -> None:
    """Those for types too, and those inside of functions."""
    rank = {room: number for number, level in enumerate(ROOMS) for room in level}
    wrong = []
    for file in room_files():
        for name in imported(file, everywhere=file.relative_to(ROOT / "cnnviz").as_posix() != EXCEPTION):
            other = name.split(".")[1] if name.startswith("cnnviz.") else None
            if other in rank and other != room_of(file) and rank[other] >= rank[room_of(file)]:
                wrong.append(f"{file.relative_to(ROOT)} imports {name}")
    assert wrong == []


def test_inside_a_room_no_imports_go_in_a_circle() -> None:
    for room in {room for level in ROOMS for room in level}:
        files = {
            ".".join(file.relative_to(ROOT).with_suffix("").parts): file
            for file in (ROOT / "cnnviz" / room).rglob("*.py")
            if file.name != "__init__.py"
        }
        below = {
            module: {
                other for name in imported(file) for other in files if name == other or name.startswith(f"{other}.")
            }
            for module, file in files.items()
        }
        while leaves := {module for module, others in below.items() if not others - {module}}:
            below = {module: others - leaves for module, others in below.items() if module not in leaves}
        assert not below, f"{room}: {sorted(below)}"


def test_a_private_name_stays_in_its_file() -> None:
    for folder in ("cnnviz", "plugins", "benchmarks"):
        for file in (ROOT / folder).rglob("*.py"):
            own = {name for name in imported(file, everywhere=True) if name.startswith(("cnnviz.", "benchmarks."))}
            assert not [name for name in own if name.rpartition(".")[2].startswith("_")], file


def test_files_and_classes_are_short_enough_to_read() -> None:
    for file in (ROOT / "cnnviz").rglob("*.py"):
        assert len(file.read_text().splitlines()) <= 350, file
        for node in ast.walk(parsed(file)):
            if isinstance(node, ast.ClassDef):
                methods = [child for child in node.body if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)]
                assert len(methods) <= 25, f"{file}: {node.name}"


def test_cnnviz_names_no_plugin() -> None:
    for file in (ROOT / "cnnviz").rglob("*.py"):
        assert not any(name.startswith("cnnviz_plugins") for name in imported(file, everywhere=True)), file


def public_names() -> dict[str, str]:
    """Every public name by its full path, with the file that defines it, as the stubs list them."""
    names = {}
    for stub in (ROOT / "cnnviz").rglob("*.pyi"):
        package = ".".join(stub.parent.relative_to(ROOT).parts)
        for line in imports_in(ast.parse(stub.read_text())):
            if line.module is None:
                continue  # a package, which lists its own names
            assert line.level == 1, f"{stub} lists {line.module}, which is not beside it"
            names |= {f"{package}.{alias.name}": f"{package}.{line.module}" for alias in line.names}
    for face in ("objectives", "targets"):
        imports = imports_in(ast.parse((ROOT / "cnnviz" / f"{face}.py").read_text()))
        names |= {f"cnnviz.{face}.{alias.name}": str(x.module) for x in imports for alias in x.names}
    return names


def test_plugins_import_only_public_names() -> None:
    """Those that a stub lists: of ``cnnviz``, or of a room."""
    public = set(public_names())
    for file in (ROOT / "plugins").rglob("*.py"):
        used = {name for name in imported(file, everywhere=True) if name.partition(".")[0] == "cnnviz"}
        assert used <= {"cnnviz", *public}, f"{file.name} imports {used - public}"


@pytest.mark.parametrize(
    ("package", "owners"),
    [
        ("pluggy", {"registry"}),
        ("torch.overrides", {"engine", "incremental"}),
        ("torch.autograd", {"engine", "incremental"}),
        ("typer", {"cli"}),
        ("matplotlib", {"drawing"}),
        ("starlette", {"pages"}),
        ("uvicorn", {"pages"}),
    ],
)
def test_a_library_is_met_in_few_rooms(package: str, owners: set[str]) -> None:
    users = {
        room_of(file)
        for file in room_files()
        if any(f"{name}.".startswith(f"{package}.") for name in imported(file, everywhere=True))
    }
    assert users <= owners


def test_every_library_that_is_imported_is_a_declared_dependency() -> None:
    """Not only there because another package brings it along."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    called = {"pil": "pillow", "skimage": "scikit_image", "cv2": "opencv_python_headless"}

    def declared(lines: list[str]) -> set[str]:
        return {re.split(r"[<>=\[ ]", line)[0].lower().replace("-", "_") for line in lines}

    def libraries(files: set[Path]) -> set[str]:
        modules = {name.partition(".")[0] for file in files for name in imported(file, everywhere=True)}
        found = modules - set(sys.stdlib_module_names) - {"cnnviz", "cnnviz_plugins"}
        return {called.get(name.lower(), name.lower()) for name in found}

    explorer = {*(ROOT / "cnnviz" / "pages" / "explorer").rglob("*.py")}  # the one part that is an extra's
    others = {*(ROOT / "cnnviz").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")} - explorer
    assert libraries(others) <= declared(project["dependencies"])
    extra = declared(project["optional-dependencies"]["serve"])
    assert libraries(explorer) <= declared(project["dependencies"]) | extra
    assert libraries(explorer) >= extra


def test_importing_and_listing_load_neither_torch_nor_matplotlib() -> None:
    code = (
        "import sys, cnnviz; names = [*cnnviz.attributions, *cnnviz.renderers]; assert 'grad_cam' in names; "
        "shown = cnnviz.attributions._repr_mimebundle_()['text/html']; assert 'by their mean gradient' in shown; "
        "print([name for name in ('torch', 'matplotlib', 'numpy', 'cnnviz_plugins') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_public_name_stays_itself_whatever_is_imported_first() -> None:
    modules = {".".join(file.relative_to(ROOT).with_suffix("").parts) for file in (ROOT / "cnnviz").rglob("*.py")}
    assert not modules & set(public_names()), "a module of that name would take its place"


def test_every_public_name_exists_and_has_one_home() -> None:
    names = public_names()
    for name in names:
        package, _, last = name.rpartition(".")
        assert hasattr(importlib.import_module(package), last), name
    assert len({name.rpartition(".")[2] for name in names}) == len(names), "a name is public in one place"
    packages = {name for name in cnnviz.__all__ if isinstance(getattr(cnnviz, name), ModuleType)}
    top = {f"cnnviz.{name}" for name in set(cnnviz.__all__) - packages}
    assert top == {name for name in names if name.count(".") == 1}
    assert len(top) <= 67
    assert {f"cnnviz.{package}" for package in packages} == {name.rpartition(".")[0] for name in names} - {"cnnviz"}
    with pytest.raises(AttributeError, match="No cnnviz attribute explian"):
        cnnviz.explian  # noqa: B018  # looking it up is the test


def imports_in(node: ast.AST) -> list[ast.ImportFrom]:
    return [line for line in ast.walk(node) if isinstance(line, ast.ImportFrom)]
