"""Class names are read from what data sets and other programs write, in the order of the outputs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cnnviz import demo, explain, load_model
from cnnviz.models.class_names import LARGEST, read_class_names

NAMES = ("tench", "tabby, tabby cat", "étoile")
AS_NUMBERED = {str(number): name for number, name in enumerate(NAMES)}
YAML = "# a data set\npath: ../data\nnc: 3\nnames:\n"

READ: dict[str, str] = {
    "lines.txt": "tench\n tabby, tabby cat \nétoile\n\n\n",
    "numbered.txt": "0: tench\n2: étoile\n1: 'tabby, tabby cat'\n",
    "dict.txt": "0\ttench\n1\ttabby, tabby cat\n2\tétoile\n",
    "synset_words.txt": "n01440764 tench\nn02123045 tabby, tabby cat\nn00000000 étoile\n",
    "list.json": json.dumps(NAMES),
    "numbered.json": json.dumps(AS_NUMBERED),
    "backwards.json": json.dumps({name: number for number, name in reversed(list(enumerate(NAMES)))}),
    "imagenet_class_index.json": json.dumps({number: ["n01440764", name] for number, name in AS_NUMBERED.items()}),
    "config.json": json.dumps({"architectures": ["ResNet"], "id2label": AS_NUMBERED, "label2id": {}}),
    "coco.json": json.dumps({"names": list(NAMES)}),
    "table.csv": 'index,name\n2,étoile\n0,tench\n1,"tabby, tabby cat"\n',
    "names.csv": 'name,wnid\ntench,n1\n"tabby, tabby cat",n2\nétoile,n3\n',
    "backwards.csv": 'class,id\ntench,0\nétoile,2\n"tabby, tabby cat",1\n',
    "bare.csv": '0,tench\n1,"tabby, tabby cat"\n\n2,étoile\n',
    "one.csv": 'tench\n"tabby, tabby cat"\nétoile\n',
    "list.yaml": YAML + "  - tench\n  - tabby, tabby cat\n  - étoile\n",
    "data.yml": YAML + "  2: étoile\n  0: tench\n  1: tabby, tabby cat\n",
    "flow.yaml": "names: ['tench', 'tabby, tabby cat', 'étoile']\n",
}


@pytest.mark.parametrize("name", READ)
def test_names_are_read(name: str, tmp_path: Path) -> None:
    if name.endswith(("yaml", "yml")):
        pytest.importorskip("yaml")
    for encoding in ("utf-8", "utf-8-sig"):
        (tmp_path / name).write_text(READ[name], encoding=encoding)
        assert read_class_names(tmp_path / name) == NAMES


def test_what_only_looks_like_numbers_is_a_name(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("0: zero\none\n")
    (tmp_path / "digits.json").write_text("[3, 1]")
    assert read_class_names(tmp_path / "a.txt") == ("0: zero", "one")
    assert read_class_names(tmp_path / "digits.json") == ("3", "1")


REFUSED: dict[str, tuple[str, str]] = {
    "blank.txt": ("cat\n\ndog", "line 2 is blank; write one name per line, in the order of the outputs"),
    "gap.txt": (
        "0: cat\n2: dog",
        "have 2 names, and none for class 1; classes are numbered from 0, one after",
    ),
    "from-one.json": ('{"1": "cat", "2": "dog"}', "none for class 0"),
    "twice.txt": ("0: cat\n0: dog", "name class 0 twice: 'cat' and 'dog'"),
    "no.json": ("{cat", "are not JSON: "),
    "deep.json": ("[" * 100_000, "are not JSON: "),
    "numbers.json": ('{"a": {"b": 1}}', "hold no names; they are a list of texts, or a mapping from numbers to names"),
    "empty.json": ("[]", "hold no names"),
    "wide.csv": ("a,b,c\nd,e,f\n", "have 3 columns; its first line names one of them 'name'"),
    "number.csv": ("index,name\nx,cat\n", "line 2: 'x' is no number of a class"),
    "short.csv": ("index,name\n0\n", "line 2: it has no name"),
    "norway.yaml": ("names: [dk, no]\n", "hold no names; .*in YAML write 'yes' and 'no' in quotes"),
    "code.yaml": ("names: !!python/object/apply:os.system ['touch ran']\n", "are not plain YAML: "),
    "broken.yaml": ("names: [cat\n", "are not plain YAML: "),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_holds_no_names_is_one_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name.endswith("yaml"):
        pytest.importorskip("yaml")
    monkeypatch.chdir(tmp_path)
    content, told = REFUSED[name]
    Path(name).write_text(content)
    with pytest.raises(ValueError, match=rf"categories '{name}'.*{told}") as caught:
        read_class_names(name)
    assert "\n" not in str(caught.value)
    assert not Path("ran").exists()


def test_files_that_are_too_large_or_none_are_refused(tmp_path: Path) -> None:
    with (tmp_path / "a.txt").open("wb") as file:
        file.truncate(LARGEST + 1)
    with pytest.raises(ValueError, match=r"a.txt' are larger than 16,000,000 bytes"):
        read_class_names(tmp_path / "a.txt")
    with pytest.raises(IsADirectoryError, match="is a folder, not a file of categories"):
        read_class_names(tmp_path)


def test_yaml_names_the_extra_where_it_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cnnviz.models.class_names.find_spec", lambda name: None)
    (tmp_path / "a.yaml").write_text("names: [cat]")
    with pytest.raises(ModuleNotFoundError, match=r"which needs PyYAML: pip install 'cnnviz\[yaml\]'; or write"):
        read_class_names(tmp_path / "a.yaml")


def test_a_model_is_loaded_with_them(tmp_path: Path) -> None:
    names = [f"shape {number}" for number in range(8)]
    (tmp_path / "names.json").write_text(json.dumps({"names": dict(enumerate(names))}))
    assert load_model("demo", categories=tmp_path / "names.json").categories == tuple(names)


def test_explain_takes_a_file_of_them_too(tmp_path: Path) -> None:
    names = tuple(f"shape {number}" for number in range(8))
    (tmp_path / "names.txt").write_text("\n".join(names))
    inputs = demo.as_inputs(demo.pictures().pictures[:1])
    for given in (tmp_path / "names.txt", str(tmp_path / "names.txt"), names):
        answer = explain(load_model("demo").module, inputs, "gradient", target="shape 3", categories=given)
        assert answer.categories == names
