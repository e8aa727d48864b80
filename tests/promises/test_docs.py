"""What the pages say is so: their code runs, their commands run, their links lead somewhere, their messages exist."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote

import pytest
from PIL import Image
from torchvision import models

import cnnviz
from cnnviz.__main__ import main
from cnnviz.registry.registry import registries

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
WRITTEN = [page for page in sorted(DOCS.rglob("*.md")) if not page.relative_to(DOCS).parts[0].startswith("_")]
PAGES = [ROOT / "README.md", *WRITTEN]
FENCE = re.compile(
    r"(?:<!-- not run: (?P<reason>[^>]+) -->\n+)?^```(?P<language>[^\n`]*)\n(?P<text>.*?)^```$", re.M | re.S
)
SHELLS = ("sh", "console")
SETS_UP = ("pip install ", "python -m pip install ", "python3 -m venv ", "git clone ")
ANYTHING = "…"


@dataclass(frozen=True)
class Block:
    """What stands between two fences, and the line it begins at."""

    language: str
    text: str
    line: int
    reason: str | None = None


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(each["language"], each["text"], text.count("\n", 0, each.start("text")) + 1, each["reason"])
        for each in FENCE.finditer(text)
    ]


def prose(page: Path) -> str:
    """The page without its blocks."""
    return FENCE.sub("", page.read_text())


def with_blocks(*languages: str) -> list[Any]:
    found = [page for page in PAGES if any(block.language in languages for block in blocks(page))]
    return [pytest.param(page, id=page.stem) for page in found]


@pytest.fixture
def _as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Works in an empty folder, and forgets what a page registers or imports."""
    monkeypatch.chdir(tmp_path)
    modules = set(sys.modules)
    names = [set(registry) for registry in registries]
    yield
    for registry, before in zip(registries, names, strict=True):
        for name in set(registry) - before:
            del registry._methods[name], registry._origins[name]
        for name, _ in registry.plugins.list_name_plugin():
            if registry.plugins.has_plugin(name) and name not in registry:
                registry.plugins.unregister(name=name)
        assert set(registry) == before
    for name in set(sys.modules) - modules:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").is_relative_to(tmp_path):
            del sys.modules[name]


@pytest.fixture(scope="session")
def demonstration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that ``cnnviz demo -o demo`` writes; it takes seconds, and several pages begin with it."""
    folder = tmp_path_factory.mktemp("demonstration") / "demo"
    assert main(["demo", "-o", str(folder)]) == 0
    return folder


@pytest.fixture
def _squeezenet_is_downloaded(assets: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: Any) -> None:
    """torchvision finds trained weights of its squeezenet1_0 where it would have kept its own."""
    home = tmp_path_factory.mktemp("torch")
    checkpoints = home / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    name = models.SqueezeNet1_0_Weights.IMAGENET1K_V1.url.rpartition("/")[2]
    shutil.copy(assets / "models" / "squeezenet1_0-imagenet.pth", checkpoints / name)
    monkeypatch.setenv("TORCH_HOME", str(home))


@pytest.mark.usefixtures("_as_before")
@pytest.mark.parametrize("page", with_blocks("python", *SHELLS))
def test_code_and_commands_run(page: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    if "squeezenet1_0" in page.read_text():
        request.getfixturevalue("_squeezenet_is_downloaded")
    namespace: dict[str, Any] = {"__name__": f"page_{page.stem}"}
    for block in blocks(page):
        if block.reason is not None:
            assert block.reason.strip(), f"{page.name}:{block.line} does not say why it is not run"
        elif block.language == "python":
            source = "\n" * (block.line - 1) + block.text  # so that a failure tells the line of the page
            # a block has the imports from __future__ that it says, and not those of this file
            exec(compile(source, str(page), "exec", dont_inherit=True), namespace)
        elif block.language in SHELLS:
            for command in commands(block):
                status = run(command, request)
                assert status == 0, f"{page.name}:{block.line}: {command} ended with {status}:\n{capsys.readouterr()}"


@pytest.mark.parametrize(("name", "count"), [("seeds", 20), ("layers-targets-inputs", 3)])
def test_every_picture_of_the_page_is_what_a_command_of_it_makes(name: str, count: int) -> None:
    text = (DOCS / f"{name}.md").read_text()
    made = re.findall(r"(?:-o |--sheet |draw\(\"cat.png\", \"|\.save\(\")([\w./-]+\.png)", text)
    shown = re.findall(rf"\]\(pictures/{name}/([^)]+)\)", text)
    assert len(shown) > count
    assert set(shown) <= {Path(word).name for word in made}
    for shown_one in shown:
        with Image.open(DOCS / "pictures" / name / shown_one) as picture:
            low, high = picture.convert("L").getextrema()
        assert high - low > 50, f"{shown_one} is blank"


def commands(block: Block) -> list[str]:
    """The commands of a block; ``console`` blocks show answers too."""
    lines = block.text.replace("\\\n", " ").splitlines()
    if block.language == "console":
        return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    return [line for line in lines if line.strip() and not line.startswith("#")]


def run(command: str, request: pytest.FixtureRequest) -> int:
    """The command's exit status. Commands that set up an environment are passed over."""
    words = shlex.split(command, comments=True)
    if command.startswith(SETS_UP):
        return 0
    if "cnnviz" not in words:
        pytest.fail(f"{command} is no command of cnnviz; say <!-- not run: why --> before its block")
    if "resnet50" in words:
        pytest.fail(f"{command} needs a download; say <!-- not run: why --> before its block")
    if words[:2] == ["cnnviz", "demo"]:
        place = words[words.index("-o") + 1] if "-o" in words else "cnnviz-demo"
        shutil.copytree(request.getfixturevalue("demonstration"), place)
        return 0
    if words[0] == "cnnviz":
        return main(in_few_steps(words[1:]))
    variables = dict(word.split("=", 1) for word in words[: words.index("cnnviz")])  # read when a process begins
    cnnviz_ = [sys.executable, "-m", "cnnviz", *words[words.index("cnnviz") + 1 :]]
    return subprocess.run(cnnviz_, env=os.environ | variables, capture_output=True, check=False).returncode


def in_few_steps(words: list[str]) -> list[str]:
    """The command that makes its images in four steps at most: here they are not looked at."""
    if words[0] not in ("synthesize", "invert"):
        return words
    if "--steps" not in words:
        return [*words, "--steps", "4"]
    place = words.index("--steps") + 1
    return [*words[:place], str(min(4, int(words[place]))), *words[place + 1 :]]


@pytest.mark.parametrize("page", with_blocks("toml"))
def test_toml_is_toml(page: Path) -> None:
    for block in blocks(page):
        if block.language == "toml":
            assert tomllib.loads(block.text)


def test_blocks_are_of_a_known_language() -> None:
    known = {"python", "toml", "text", "json", *SHELLS}
    for page in PAGES:
        for block in blocks(page):
            assert block.language in known or block.language.startswith("{"), f"{page.name}:{block.line}"


@pytest.mark.parametrize("page", [pytest.param(page, id=page.stem) for page in PAGES])
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose(page))):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, heading = link.partition("#")
        target = page.parent / place if place else page
        assert target.exists(), f"{page.name} links to {link}, which is not there"
        if heading and target.name != "api.md":  # whose headings are made when it is built
            assert heading in anchors(target), f"{page.name} links to {link}; {target.name} has {anchors(target)}"


def anchors(page: Path) -> list[str]:
    """The places that headings make, as GitHub and MyST name them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.M)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def test_every_page_is_in_the_contents() -> None:
    listed: set[str] = set()
    for page in WRITTEN:
        for block in blocks(page):
            if block.language == "{toctree}":
                names = (line for line in block.text.splitlines() if line and not line.startswith(":"))
                listed |= {str((page.parent / name).relative_to(DOCS)) for name in names}
    made_of_examples = {name for name in listed if name.startswith("auto_")}
    assert listed - made_of_examples == {str(page.relative_to(DOCS).with_suffix("")) for page in WRITTEN} - {"index"}


def test_troubleshooting_is_keyed_by_messages_that_exist() -> None:
    headings = re.findall(r"^### `(.+)`$", (DOCS / "troubleshooting.md").read_text(), re.M)
    known = messages()
    assert len(headings) > 40
    assert len(headings) == len(set(headings))
    missing = [each for each in headings if not any(occurs(each, message) for message in known)]
    assert not missing, f"nothing in the source says {missing}"


def test_a_message_that_nobody_raises_is_found_missing() -> None:
    assert not any(occurs("the model is in trainingmode", message) for message in messages())
    assert occurs("layer … gives …, which", "layer … gives …, which has none")
    assert not occurs("layer … gives …, which", "layer … gives …")


def occurs(heading: str, message: str) -> bool:
    """Whether the heading's constant parts stand in the message, in their order."""
    place = 0
    for part in filter(None, (each.strip() for each in heading.split(ANYTHING))):
        found = message.find(part, place)
        if found < 0:
            return False
        place = found + len(part)
    return True


@cache
def messages() -> list[str]:
    """Every text in the source of cnnviz and its plugins, with what is filled in as an ellipsis."""
    found = []
    for folder in (ROOT / "cnnviz", ROOT / "plugins"):
        for file in folder.rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.JoinedStr):
                    parts = (each.value if isinstance(each, ast.Constant) else ANYTHING for each in node.values)
                    found.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return found


def test_the_changelog_tells_of_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\n## {version}\n" in (ROOT / "CHANGELOG.md").read_text()


def test_every_environment_variable_is_documented() -> None:
    source = " ".join(file.read_text() for file in (ROOT / "cnnviz").rglob("*.py"))
    page = (DOCS / "command-line.md").read_text()
    assert [name for name in set(re.findall(r"CNNVIZ_[A-Z]+", source)) if name not in page] == []


def test_the_pages_build_and_name_everything(tmp_path: Path) -> None:
    pytest.importorskip("furo", reason="the documentation's tools are not installed: pip install -e '.[docs]'")
    pytest.importorskip("myst_parser", reason="the documentation's tools are not installed: pip install -e '.[docs]'")
    build = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-b",
        "html",
        "-D",
        "sphinx_gallery_conf.filename_pattern=save_and_read",  # the others run in test_examples.py
        "-D",
        "toc_object_entries=0",  # copied into each page, which takes a quarter of the time, and no place of its own
        str(DOCS),
        str(tmp_path / "html"),
    ]
    built = subprocess.run([*build, "-d", str(tmp_path / "trees")], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    methods, api = ((tmp_path / "html" / page).read_text() for page in ("methods.html", "api.html"))
    ours: list[str] = []
    for registry in registries:
        ours += [name for name in registry if registry.origin(name).startswith("cnnviz ")]
    assert [name for name in ours if f">{name}<" not in methods] == []
    listed = [name for name in cnnviz.__all__ if not isinstance(getattr(cnnviz, name), ModuleType)]
    assert [name for name in listed if f'id="cnnviz.{name}"' not in api] == []
    check_links((tmp_path / "html").resolve())


class Places(HTMLParser):
    """The places of a built page, and where its links lead."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.ids.add(value)
            elif value and (tag, name) in (("a", "href"), ("img", "src")):
                self.links.append(value)


def check_links(html: Path) -> None:
    """Every link inside of the built pages leads to a page and a place that are there; others have the form of one."""
    places: dict[Path, Places] = {}
    source = html / "_modules"  # pages of source code, whose places Sphinx guesses where names are handed on
    for page in (page for page in html.rglob("*.html") if not page.is_relative_to(source)):
        places[page] = Places()
        places[page].feed(page.read_text())
    assert len(places) > 30
    lost: list[str] = []
    for page, of_page in places.items():
        for link in of_page.links:
            if re.match(r"[a-z]+:", link):
                assert re.fullmatch(r"https?://[\w.-]+(/\S*)?|mailto:\S+|data:image/\S+", link), f"{page.name}: {link}"
                continue
            path, _, place = unquote(link).partition("#")
            target = (page.parent / path).resolve() if path else page
            if target.is_dir():
                target /= "index.html"
            if not target.exists() or (place and target in places and place not in places[target].ids):
                lost.append(f"{page.relative_to(html)} -> {link}")
    assert not lost, lost[:20]
