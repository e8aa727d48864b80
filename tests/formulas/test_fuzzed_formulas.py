"""Whatever text is read as a formula: it is one or a FormulaError says why not, soon, and no code of the text runs."""

from __future__ import annotations

import builtins
import random
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from quick import quick

from cnnviz import Expr, attributions, parse_formula
from cnnviz.engine.torch_functions import PLAIN
from cnnviz.formulas import FormulaError
from cnnviz.formulas.named_rules import rule_names
from cnnviz.formulas.words import CONSTANTS, PARTS
from cnnviz.registry.registry import registries

TEXTS, SHARE = 20_000, 20  # one in so many is read, unless all are wanted
RECIPES = [
    "guided_backprop() * upsample(grad_cam(layer='layer3'))",
    "over(cnnviz.gradient(rule=guided) ** 2, noisy(8, 0.1), 'variance')",
    "(image() - baseline_input('blur')) * over(cnnviz.gradient(), path(16, baseline_input('blur')))",
    "toward(grad_cam(), channel(layer='a', index=3) - 2 * neuron(layer=-1, index=1, at=(3, 4)))",
    "grad_cam(layer=['a', ('b', 'c')], fuse='max') - toward(grad_cam(), 'star')",
    "smoothgrad(of=amax(abs(gradient()), 1, keepdim=True), samples=3, sigma=-1.5e-3)",
    "noted(compared(deeplift, backgrounds('mean')), 'how \\'much\\'', score() - bias_share())",
    "attributions['rise'](masks=8, cells=2, baseline=None)",
    "torch.nn.functional.max_pool2d(-cnnviz.activation(LayerAt('x', call=2)), 3, ceil_mode=False, stride=None)",
]
HOSTILE = [
    "9**9**9**9",
    "(1,)*10**9",
    "rise(masks=10**12)",
    "__import__('os').system('touch pwned')",
    "().__class__.__bases__[0].__subclasses__()",
    "eval('poisoned()')",
    'exec("poisoned()")',
    "open('/etc/passwd')",
    "[poisoned() for _ in (1,)]",
    "(lambda: poisoned())()",
    "f'{poisoned()}'",
    "image(*poisoned())",
    "image(**{'a': poisoned()})",
    "grad_cam(layer=poisoned())",
    "(x := poisoned())",
    "attributions['poisoned']()",
    "torch.load('pwned')",
    "torch.hub.load('a', 'b')",
    "rule('os:system')",
    "cnnviz.gradient(rule=rule('builtins:poisoned'))",
    "poisoned",
    "poisoned() if poisoned() else poisoned()",
    "await poisoned()",
    "print(poisoned(), file=poisoned)",
    "%s" % ("(" * 500),
    "-" * 700,
    "~!@#$%^&*",
    "\0\x1b[2J\u202e\ufeff\ud800",
    "\uff19 + \uff19",
    "grad_cam" + "\N{COMBINING ACUTE ACCENT}()",
    "9" * 1990,
    "1e" + "9" * 1000,
    "0." + "3" * 1000 + " * image()",
    "'" + "\\" * 1001,
    '"""',
    "'\\x4' * image()",
    "image()" + "**2" * 300,
    "image()" + "+1" * 900,
    "abs(" * 300 + "image()" + ")" * 300,
    "stack((" + "image()," * 200 + "))",
    "over(" * 30 + "image()" + ", noisy(1000))" * 30,
]
WORDS = [
    *(*attributions, *PARTS, *PLAIN, *CONSTANTS, "torch.amax", "torch.float64", "rule", "guided", "tensor", "poisoned"),
    *("(", ")", "(", ")", "()", "()", "[", "]", ",", ",", "=", "+", "-", "*", "/", "**", ".", " ", "'", '"', "\\"),
    *("0", "1", "2", "0.5", "1e-3", "1000000", "9999999", "'layer'", "'a.b'", "(1, 2)", "()", "[]", "layer=", "of="),
    *("samples=", "masks=", "steps=", "rule=", "baseline=", "dim=", "keepdim=True", "\n", "\t", "\0", "é", "\u202e"),
]


def texts(count: int) -> Iterator[str]:
    """The same in every run: recipes with other words, or parts deleted, doubled and turned; soups of words."""
    draw = random.Random(0)
    yield from HOSTILE
    for number in range(count - len(HOSTILE)):
        if number % 3 == 0:
            yield "".join(draw.choice(WORDS) for _ in range(draw.randrange(1, 30)))
            continue
        if number % 3 == 1:
            words = re.findall(r"[\w.]+|'[^']*'|\W", draw.choice(RECIPES))
            words[draw.randrange(len(words))] = draw.choice(draw.choice((WORDS, words)))
            yield "".join(words)
            continue
        letters = list(draw.choice([*RECIPES, *RECIPES, *HOSTILE])[:400])
        for _ in range(draw.randrange(1, 5)):
            start = draw.randrange(len(letters) + 1)
            stop = min(len(letters), start + draw.randrange(12))
            part = letters[start:stop]
            letters[start:stop] = draw.choice(([], part * 3, part[::-1], list(draw.choice(WORDS)), part))
        yield "".join(letters)


@contextmanager
def no_code_runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What the interpreter reports meanwhile: code that is compiled or run, files, modules, programs."""
    watching, seen = [True], list[str]()

    def audit(event: str, args: tuple[Any, ...]) -> None:
        if watching and event.partition(".")[0] in AUDITED:
            seen.append(f"{event} {args!r:.200}")

    def poisoned(*args: Any, **named: Any) -> None:
        seen.append("poisoned")

    monkeypatch.setattr(builtins, "poisoned", poisoned, raising=False)
    sys.addaudithook(audit)  # it can't be taken back
    try:
        yield seen
    finally:
        watching.clear()


AUDITED = {"exec", "compile", "open", "import", "os", "subprocess", "socket", "ctypes", "shutil", "urllib", "pickle"}


def check(text: str) -> bool:
    """True for a formula, which prints as one that is read back the same."""
    try:
        formula = parse_formula(text)
    except FormulaError as error:
        refused = error
    else:
        assert isinstance(formula, Expr)
        printed = repr(formula)
        assert len(printed) > 2_000 or repr(parse_formula(printed)) == printed
        return True
    assert refused.text == text
    assert 0 <= refused.start <= refused.stop <= len(text)
    assert str(refused).isprintable()
    assert len(str(refused)) < 800
    return False


def test_no_text_raises_anything_else_and_none_of_them_runs(
    monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config
) -> None:
    for name in attributions:  # loaded when they are first asked for, which imports them
        parse_formula(f"attributions[{name!r}]({', '.join(f'{key}={value!r}' for key, value in quick(name).items())})")
    rule_names()
    assert all(map(len, registries))  # the names of all kinds, for hints
    share = 1 if pytestconfig.getoption("--all-situations") else SHARE
    made = refused = 0
    with no_code_runs(monkeypatch) as seen:
        for number, text in enumerate(texts(TEXTS)):
            if number % share == 0 or number < len(HOSTILE):
                made, refused = (made + 1, refused) if check(text) else (made, refused + 1)
    assert seen == []
    assert made > 0.02 * refused  # some of them are formulas
    assert made + refused >= TEXTS // share


def test_the_watch_over_code_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or else the test above would pass whatever ran."""
    ways: list[Callable[[], Any]] = [
        lambda: eval("1 + 1"),
        lambda: eval("poisoned()"),
        lambda: open(__file__).close(),
        lambda: __import__("this_module_is_not_there"),
    ]
    for way in ways:
        with no_code_runs(monkeypatch) as seen, suppress(ImportError):
            way()
        assert seen
