"""From a formula's text to the formula. The text is read and looked up word by word, and never evaluated."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import torch

from cnnviz.engine.layers import INPUT
from cnnviz.engine.torch_functions import PLAIN, argument_names, changes_its_argument, function_named, function_texts
from cnnviz.formulas.argument_kinds import kind_of, takes
from cnnviz.formulas.expr import Expr, applied
from cnnviz.formulas.formula_error import FormulaError, shown
from cnnviz.formulas.named_rules import rule_named, rule_names
from cnnviz.formulas.passes import passes_at_most
from cnnviz.formulas.syntax import Call, Items, Literal, Name, Node, Parser, Signed
from cnnviz.formulas.words import PARTS, UNREADABLE, method_text, part_named
from cnnviz.registry.peer_names import asked_back, near_methods, near_settings
from cnnviz.registry.registry import Method, attributions
from cnnviz.run.objectives import Objective

MOST_PASSES, MOST_POWER = 10_000_000, 1_000
LONGEST_NAME = 60
"""No longer name is looked for among those that it may have meant."""
_CONSTANTS = {"None": None, "True": True, "False": False, "INPUT": INPUT, "cnnviz.INPUT": INPUT}
_SIGNS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "**": operator.pow,
}


def parse_formula(text: str) -> Expr:
    """The formula that a text says, such as ``guided_backprop() * upsample(grad_cam())``.

    It is what the same text is in Python: methods, parts of formulas (:doc:`compose`), objectives inside of
    ``toward``, and torch functions, all by name; ``+ - * / **``, numbers, texts, tuples and lists. The recipe of an
    explanation is such a text. Nothing of it is evaluated: names are looked up, and there are no others. Where a method
    and a part have one name, as ``gradient``, the name alone is the method, and ``cnnviz.gradient()`` the part.

    Args:
        text: at most 2,000 characters, 64 calls and 32 levels; whole numbers up to 1,000,000.

    Returns:
        The formula; for a call of a method alone the method with these settings, which has a renderer of its own.

    Raises:
        cnnviz.formulas.FormulaError: a ValueError, with the place as ``start`` and ``stop``; for a text that is no
            formula, a name or setting that does not exist, a value that a method refuses, arithmetic without a formula,
            and more than 10,000,000 passes.
        TypeError: for what is no text.
    """
    if not isinstance(text, str):
        raise TypeError(f"parse_formula reads a text, not a {type(text).__name__}; a formula can be explained as it is")
    parser = Parser(text)
    tree = parser.tree()
    if isinstance(tree, Name) and tree.name not in _CONSTANTS:
        _Builder(parser).refuse_name(tree)
    value = _Builder(parser).value(tree)
    if not isinstance(value, Expr):
        way_out = "; it stands inside of one, such as toward(grad_cam(), ...)" if isinstance(value, Objective) else ""
        parser.fail(f"this is {kind_of(value)}, and no formula{way_out}", tree.start, tree.stop)
    passes = _Builder(parser).made(tree, lambda: passes_at_most(value))
    if passes > MOST_PASSES:
        parser.fail(f"this takes {passes:,} passes, and a formula at most {MOST_PASSES:,}", tree.start, tree.stop)
    return value


@dataclass(frozen=True)
class _Builder:
    """Makes values of parts of the text."""

    parser: Parser

    def value(self, node: Node, is_operand: bool = False) -> Any:
        """What a part of the text stands for."""
        if isinstance(node, Literal):
            return node.value
        if isinstance(node, Items):
            return self._items(node)
        if isinstance(node, Signed):
            return self._signed(node)
        if isinstance(node, Call):
            return self._call(node)
        assert isinstance(node, Name)
        if node.name in _CONSTANTS:
            return _CONSTANTS[node.name]
        kind = getattr(torch, node.name.removeprefix("torch."), None) if node.name.startswith("torch.") else None
        if isinstance(kind, torch.dtype):
            return kind
        self.refuse_name(node, is_argument=not is_operand)

    def refuse_name(self, node: Name, is_argument: bool = False) -> NoReturn:
        """Raises FormulaError for a name that stands alone."""
        if node.name in attributions or node.name in PARTS or function_named(node.name) is not None:
            reason = f"{shown(node.name)} is a name alone, and no formula; call it, as {shown(node.name)}()"
            self.parser.fail(reason, node.start, node.stop, f"{node.name}()")
        self._refuse_unknown(node, is_argument)

    def _refuse_unknown(self, node: Name, is_argument: bool = False) -> NoReturn:
        """Raises FormulaError for a name that means nothing, with the nearest one."""
        if node.name in UNREADABLE:
            self.parser.fail(f"{node.name} can't be read: {UNREADABLE[node.name]}", node.start, node.stop)
        name = node.name.removeprefix("cnnviz.")  # before a method there is nothing
        known = function_texts() if name.startswith("torch.") else [*attributions, *PARTS, *PLAIN]
        near, remark = near_methods(name, known) if len(name) < LONGEST_NAME else ([], "")
        hint = asked_back(near, remark) if near else "cnnviz methods lists methods, the page Compose methods the parts"
        texts = [method_text(name) if name in attributions else name for name in near]
        reason = f"there is no method, part or function {shown(node.name)!r}; {hint}"
        if is_argument:  # such as layer=layer3
            reason = (
                f"{reason}{'' if reason.endswith('?') else '.'} A text stands in quotation marks: {shown(node.name)!r}"
            )
        self.parser.fail(reason, node.start, node.stop, texts[0] if texts else None)

    def _items(self, node: Items) -> Any:
        values = [self.value(item) for item in node.items]
        return values if node.is_list else tuple(values)

    def _signed(self, node: Signed) -> Any:
        values = [self.value(operand, is_operand=True) for operand in node.operands]
        formulas = [isinstance(value, Expr) for value in values]
        targets = [isinstance(value, Objective) for value in values]
        for operand, value, *known in zip(node.operands, values, formulas, targets, strict=True):
            if not any(known) and not isinstance(value, int | float):
                reason = f"{kind_of(value)} takes no part in arithmetic; formulas and numbers do"
                self.parser.fail(reason, operand.start, operand.stop)
        if any(formulas) and any(targets):
            self.parser.fail("a formula and a target can't be put together", node.start, node.stop)
        if not any(formulas) and not any(targets):
            reason = "arithmetic needs a formula on one side; write the number that it gives"
            self.parser.fail(reason, node.start, node.stop)
        if len(values) == 1:
            return -values[0]
        if node.sign == "**":
            return self._power(node, *values)
        return self.made(node, lambda: _SIGNS[node.sign](*values))

    def _power(self, node: Signed, base: Any, exponent: Any) -> Any:
        if not isinstance(base, Expr) and not isinstance(exponent, Expr):
            self.parser.fail("targets have no powers; they have + - * and /", node.start, node.stop)
        if _is_number(exponent) and abs(exponent) > MOST_POWER:
            reason = f"an exponent is at most {MOST_POWER:,}"
            self.parser.fail(reason, node.operands[1].start, node.operands[1].stop)
        return applied(torch.pow, (base, exponent))

    def _call(self, node: Call) -> Any:
        name = node.called.name
        if node.is_method:
            return self._method(node)
        if name in ("rule", "cnnviz.rule"):
            return self._rule(node)
        part = part_named(name)
        if part is not None and (name not in attributions or name in PARTS):
            return self._part(node, part)
        function = function_named(name)
        if function is not None:
            return self._function(node, function)
        if name in attributions and method_text(name) == name:
            return self._method(node)
        self._refuse_unknown(node.called)

    def _rule(self, node: Call) -> Any:
        if len(node.positional) != 1 or node.named or not isinstance(node.positional[0], Literal):
            self.parser.fail("a rule is called by its name, as rule('package:name')", node.start, node.stop)
        return self._named_rule(node.positional[0], str(node.positional[0].value))

    def _named_rule(self, node: Node, name: str) -> Any:
        try:
            return rule_named(name)
        except LookupError as error:
            near, _ = near_methods(name, known := rule_names())
            hint = asked_back(near) if near else f"there are {', '.join(known)}"
            self.parser.fail(f"{error}; {hint}", node.start, node.stop, near[0] if near else None)

    def _method(self, node: Call) -> Any:
        name = node.called.name
        try:
            method = attributions[name]
        except LookupError:
            self._refuse_unknown(node.called)
        except Exception as error:
            self.parser.fail(_line(error), node.called.start, node.called.stop)
        places = self._places(node, method.settings, name)
        settings = {setting: self.value(place) for setting, place in places.items()}
        for setting, value in settings.items():
            annotation = method.types.get(setting, method.settings[setting].annotation)
            if not takes(annotation, value, plain=False):
                self._refuse_kind(name, setting, value, places[setting])
        return self.made(node, lambda: _formula_of(method, settings), places)

    def _part(self, node: Call, part: Any) -> Any:
        name, parameters = part.__name__, inspect.signature(part).parameters
        places = self._places(node, parameters, name)
        values: dict[str, Any] = {}
        for argument, place in places.items():
            annotation = parameters[argument].annotation
            if annotation == "Rule" and isinstance(place, Name):
                values[argument] = self._named_rule(place, place.name)
            else:
                values[argument] = self.value(place)
            if not takes(annotation, values[argument]):
                self._refuse_kind(name, argument, values[argument], place)
        return self.made(node, lambda: part(**values), places)

    def _function(self, node: Call, function: Callable[..., Any]) -> Any:
        positional = [self.value(place) for place in node.positional]
        named = {name.name: self.value(place) for name, place in node.named}
        places = [*node.positional, *(place for _, place in node.named)]
        pairs = list(zip([*positional, *named.values()], places, strict=True))
        for value, place in pairs:
            if not _is_argument(value):
                reason = f"{kind_of(value)} is no argument of {node.called.name}; formulas, numbers and texts are"
                self.parser.fail(reason, place.start, place.stop)
        names = zip(argument_names(function), positional, places, strict=False)
        told = [(name, value, place.start, place.stop) for name, value, place in names]
        told += [(name.name, named[name.name], name.start, place.stop) for name, place in node.named]
        for name, value, start, stop in told:
            if changes_its_argument(name, value):
                reason = f"{name} would change what other parts of the formula read; leave it out"
                self.parser.fail(reason, start, stop)
        if not any(_has_formula(value) for value, _ in pairs):
            reason = f"{node.called.name} takes at least one formula; write the number that it gives"
            self.parser.fail(reason, node.start, node.stop)
        return self.made(node, lambda: applied(function, positional, named))

    def _places(self, node: Call, known: Mapping[str, Any], called: str) -> dict[str, Node]:
        """The arguments by name. Raises FormulaError for those that there are not, and for those that are missing."""
        known = {name: each for name, each in known.items() if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)}
        names = [name for name, each in known.items() if each.kind is not each.KEYWORD_ONLY]
        listed = ", ".join(known) or "no settings"
        if len(node.positional) > len(names):
            extra = node.positional[len(names)]
            self.parser.fail(f"{called} takes {listed}, and not so many", extra.start, extra.stop)
        places: dict[str, Node] = dict(zip(names, node.positional, strict=False))
        for name, place in node.named:
            if name.name not in known:
                near, remark = near_settings(name.name, known)
                hint = asked_back(near, remark) if near else remark or f"it takes {listed}"
                reason = f"{called} has no setting {shown(name.name)!r}; {hint}"
                self.parser.fail(reason, name.start, name.stop, near[0] if near else None)
            if name.name in places:
                self.parser.fail(f"{called}: {name.name} is given twice; leave one out", name.start, name.stop)
            places[name.name] = place
        missing = [
            name for name, each in known.items() if each.default is inspect.Parameter.empty and name not in places
        ]
        if missing:
            self.parser.fail(f"{called} needs {' and '.join(missing)}; it takes {listed}", node.start, node.stop)
        return places

    def _refuse_kind(self, called: str, setting: str, value: Any, place: Node) -> NoReturn:
        self.parser.fail(f"{called}: {setting} can't be {kind_of(value)}; give another value", place.start, place.stop)

    def made(self, node: Node, make: Callable[[], Any], places: Mapping[str, Node] | None = None) -> Any:
        """What is made; whatever it raises is told as an error of this place, or of the argument that it names."""
        try:
            return make()
        except FormulaError:
            raise
        except Exception as error:
            line = _line(error)
            named = [place for name, place in (places or {}).items() if f" {name} " in line or f"{name}=" in line]
            place = named[0] if len(named) == 1 else node
            self.parser.fail(line, place.start, place.stop)


def _formula_of(method: Method[Any], settings: Mapping[str, Any]) -> Any:
    made = method(**settings)
    if not isinstance(made, Expr):
        raise TypeError(f"{method.name} is a {type(made).__name__}, and no formula")
    return made


def _line(error: Exception) -> str:
    line = " ".join(str(error).split())
    return line[:300] or type(error).__name__


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_argument(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_argument, value))
    return value is None or isinstance(value, Expr | int | float | str | torch.dtype)


def _has_formula(value: Any) -> bool:
    return any(map(_has_formula, value)) if isinstance(value, tuple | list) else isinstance(value, Expr)
