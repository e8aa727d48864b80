"""Who may import whom: the core goes one way and names no method, plugins see only what is public."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import cnnviz

ROOT = Path(__file__).parents[1]
ORDER = [
    {"hooks", "rebinding", "recipes", "boxes", "layouts", "norms", "channels", "precisions", "compiling"},
    {"operations", "memory", "preprocessing", "registry", "guard", "targets", "lettering", "deconvolution"},
    {"biases", "rules", "recording", "regions", "weights", "pictures", "canvases", "transformations"},
    {"probabilities", "mixing"},
    {"engine", "judging", "surroundings", "models", "explanation", "folding", "plain_pictures", "annotations"},
    {"layers", "local", "grids", "labels", "matrices", "batches"},
    {"seeing", "replay", "covering", "class_maps"},
    {"objectives", "variants", "depths"},
    {"protocols", "fields", "exciting", "windows"},
    {"run"},
    {"compose", "ascent", "synthesized", "learned_masks"},
    {"parts", "elsewhere", "baselines"},
    {"points", "maps", "contrasts"},
    {"baseline_sets"},
    {"explaining", "synthesizing", "segmenting"},
    {"trials"},
    {"evaluating"},
    {"confusions", "drawing", "patches"},
    {"testing"},
    {"cli"},
    {"__main__"},
]


def module_files() -> list[Path]:
    return [file for file in (ROOT / "cnnviz").rglob("*.py") if file.name != "__init__.py" or file.parent.name == "cli"]


def part_of(file: Path) -> str:
    return file.relative_to(ROOT / "cnnviz").parts[0].removesuffix(".py")


def imported(file: Path, everywhere: bool = False) -> set[str]:
    """Full names of what a file imports when it is loaded; everywhere: inside functions and for types as well."""
    tree: ast.AST = ast.parse(file.read_text())
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


def test_imports_go_one_way() -> None:
    rank = {name: number for number, names in enumerate(ORDER) for name in names}
    wrong = []
    for file in module_files():
        part = part_of(file)
        if part == "demo":
            continue  # a network and pictures, which the rest only asks for
        assert part in rank, f"{part} has no place in the order of imports"
        for name in imported(file):
            other = name.split(".")[1] if name.startswith("cnnviz.") else None
            if other in rank and other != part and rank[other] >= rank[part]:
                wrong.append(f"{file.name} imports {name}")
    assert wrong == []


def test_cnnviz_names_no_plugin() -> None:
    for file in (ROOT / "cnnviz").rglob("*.py"):
        assert not any(name.startswith("cnnviz_plugins") for name in imported(file, everywhere=True)), file


def test_plugins_import_only_public_names() -> None:
    public = {f"cnnviz.{name}" for name in cnnviz.__all__} | {"cnnviz"}
    for file in (ROOT / "plugins").rglob("*.py"):
        used = {name for name in imported(file, everywhere=True) if name.partition(".")[0] == "cnnviz"}
        assert used <= public, f"{file.name} imports {used - public}"


@pytest.mark.parametrize(
    ("package", "owners"),
    [
        ("pluggy", {"registry.py"}),
        ("torch.overrides", {"engine.py", "biases.py", "folding.py", "recording.py", "replay.py", "probabilities.py"}),
        ("torch.autograd", {"engine.py", "biases.py", "run.py", "seeing.py"}),
        ("typer", {file.name for file in (ROOT / "cnnviz" / "cli").glob("*.py")}),
    ],
)
def test_a_library_is_met_in_few_places(package: str, owners: set[str]) -> None:
    files = [*(ROOT / "cnnviz").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")]
    users = {file.name for file in files if any(f"{each}.".startswith(f"{package}.") for each in imported(file, True))}
    assert users <= owners


def test_importing_and_listing_load_neither_torch_nor_matplotlib() -> None:
    code = (
        "import sys, cnnviz; names = [*cnnviz.attributions, *cnnviz.renderers]; assert 'grad_cam' in names; "
        "print([name for name in ('torch', 'matplotlib', 'numpy', 'cnnviz_plugins') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_public_name_stays_itself_whatever_is_imported_first() -> None:
    code = (
        "import cnnviz, cnnviz.testing, cnnviz.cli.app, types; "
        "print([name for name in cnnviz.__all__ if isinstance(getattr(cnnviz, name), types.ModuleType)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_every_public_name_exists_and_is_told_to_type_checkers() -> None:
    source = (ROOT / "cnnviz" / "__init__.py").read_text()
    (told,) = [node for node in ast.parse(source).body if isinstance(node, ast.If)]
    typed = {f"{line.module}:{each.asname}" for line in imports_in(told) for each in line.names}
    homes = {f"cnnviz.{home}:{name}" for name, home in cnnviz._HOME.items()}
    assert typed == homes
    assert all(hasattr(cnnviz, name) for name in cnnviz.__all__)
    with pytest.raises(AttributeError, match="module 'cnnviz' has no attribute 'explian'"):
        cnnviz.explian  # noqa: B018  # looking it up is the test


def imports_in(node: ast.AST) -> list[ast.ImportFrom]:
    return [each for each in ast.walk(node) if isinstance(each, ast.ImportFrom)]
