"""New packages of all four kinds: generated, installed, found, their own tests run, clean for ruff and mypy."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import cnnviz
from cnnviz.__main__ import main
from cnnviz.cli import new_files

PACKAGES = {"attribution": "my-cam", "renderer": "lit-up", "metric": "top-share", "synthesis": "other-class"}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a new package of each kind, all installed into its folder ``site``."""
    folder = tmp_path_factory.mktemp("new")
    for kind, name in PACKAGES.items():
        assert main(["new", kind, name, "-o", str(folder / name)]) == 0
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    command = [
        *install,
        "--no-deps",
        "--no-build-isolation",
        "--target",
        "site",
        *(f"./{each}" for each in PACKAGES.values()),
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def run(folder: Path, *command: str) -> str:
    """A command of Python for which the packages are installed; its output."""
    environment = os.environ | {"PYTHONPATH": str(folder / "site"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_their_own_tests_pass_and_cnnviz_finds_them(packages: Path) -> None:
    code = (
        "import sys, pytest, cnnviz\n"
        "from cnnviz.__main__ import main\n"
        "assert main(['methods', 'my_cam', '--plain']) == 0\n"
        "assert main(['doctor']) == 0\n"
        f"alone = ['-q', '-p', 'no:cacheprovider', '-c', {os.devnull!r}, '--rootdir', '.']\n"
        "sys.exit(pytest.main([*alone, *sys.argv[1:]]))"
    )
    said = run(packages, "-c", code, *(f"{name}/tests" for name in PACKAGES.values()))
    assert "my_cam: attribution from my-cam 0.1.0" in said
    assert f"{len(cnnviz.attributions) + 1} attributions load" in said
    assert "11 passed" in said


def test_they_are_clean_for_ruff_and_mypy(packages: Path) -> None:
    run(packages, "-m", "ruff", "check", "--no-cache", *PACKAGES.values())
    run(packages, "-m", "ruff", "format", "--no-cache", "--check", *PACKAGES.values())
    sources = [f"{name}/src" for name in PACKAGES.values()] + [f"{name}/tests" for name in PACKAGES.values()]
    libraries = ("torch", "numpy", "PIL")  # without them it is sooner by far
    skipped = "".join(f"[mypy-{name}.*]\nfollow_imports = skip\n" for name in libraries)
    (packages / "mypy.ini").write_text(f"[mypy]\nstrict = true\n{skipped}")
    quick = ["--config-file", "mypy.ini", "--cache-dir", os.devnull, "--follow-imports", "silent"]
    run(packages, "-m", "mypy", *quick, *sources)


def test_a_package_holds_what_it_needs_to_be_published(packages: Path, tmp_path: Path) -> None:
    folder = tmp_path / "my-cam"
    assert main(["new", "attribution", "my-cam", "-o", str(folder)]) == 0  # one in which no tests ran
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {
        ".github/workflows/tests.yml",
        ".gitignore",
        "LICENSE",
        "README.md",
        "pyproject.toml",
        "src/my_cam/__init__.py",
        "src/my_cam/py.typed",
        "tests/test_my_cam.py",
    }
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["dependencies"] == [f"cnnviz>={'.'.join(new_files.version('cnnviz').split('.')[:2])}"]
    assert "cnnviz-plugin" in project["keywords"]
    assert project["entry-points"] == {"cnnviz.attributions": {"my_cam": "my_cam:my_cam"}}
    workflow = (folder / ".github" / "workflows" / "tests.yml").read_text()
    assert "${{ matrix.python }}" in workflow
    assert all("@v" in line for line in workflow.splitlines() if "uses:" in line)
    assert "cnnviz sanity --method my_cam" in (folder / "README.md").read_text()
    assert "cnnviz sanity" not in (packages / "lit-up" / "README.md").read_text()


def test_the_next_commands_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", "metric", "far_off"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "far-off holds a package with the metric far_off, which works. Next:",
        "  pip install -e './far-off[test]'",
        "  pytest far-off",
        "  cnnviz evaluate cat.jpg --metric far_off",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["far-off"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "My Cam",
            "'My Cam' is no name of a package; use lower-case letters, digits and - between, such as my-cam",
        ),
        ("../cam", "such as cam"),
        ("a/b", "such as a-b"),
        ("2cam", "such as my-cam"),
        ("", "such as my-cam"),
        ("käse", "such as k-se"),
        ("class", "'class' is a word of Python itself, and no module can have it; say my-class"),
        ("json", "'json' is the name of a module that is there already, which it would hide; say my-json"),
        ("torch", "'torch' is the name of a module that is there already"),
        ("grad_cam", "say my-grad-cam"),
        ("grad-cam", "the attribution 'grad_cam' is taken by cnnviz"),
        ("over-channels", "'over-channels' is a name that the code of the package needs itself; say my-over-channels"),
        ("nn", "'nn' is a name that the code of the package needs itself; say my-nn"),
        ("a" * 61, "a name of 61 letters is too long; use 60 at most"),
    ],
)
def test_a_name_that_is_none_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", "attribution", name]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_not_touched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    for place in (taken, tmp_path / "gone" / "deep"):
        assert main(["new", "attribution", "my-cam", "-o", str(place)]) == 2
    told = capsys.readouterr().err
    assert "taken is there already, and nothing is written into it; name another folder with -o" in told
    assert "gone; make it first, or name another with -o" in told
    assert [path.name for path in tmp_path.rglob("*")] == ["taken"]


def test_what_fails_halfway_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = Path.write_text

    def full(path: Path, *rest: object, **more: object) -> int:
        if path.name == "LICENSE":
            raise OSError(28, "No space left on device", str(path))
        return written(path, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "write_text", full)
    assert main(["new", "attribution", "my-cam", "-o", str(tmp_path / "my-cam")]) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_place_where_nothing_can_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(**named: object) -> str:
        raise OSError(28, "No space left on device", "/a/hidden/name")

    monkeypatch.setattr("tempfile.mkdtemp", refused)
    assert main(["new", "metric", "far_off", "-o", str(tmp_path / "there")]) == 2
    said = f"nothing can be written in the folder {tmp_path}; name another folder with -o"
    assert said in " ".join(capsys.readouterr().err.split())
