"""The grammar of formulas: from text to a tree of calls, names, literals and signs. Nothing is looked up or computed.

A formula is written as in Python. Of Python's grammar there are calls with positional and named arguments, ``+ - * /
**``, brackets, tuples, lists, numbers, texts, and names with dots; ``attributions['name']`` is the one use of square
brackets behind a name. The parser is written by hand: Python's own fails in other ways in each version, and can
exhaust the stack.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NoReturn

from cnnviz.formulas.formula_error import FormulaError, shown

LONGEST, DEEPEST, MOST_CALLS, MOST_SIGNS, MOST_ITEMS = 2_000, 32, 64, 64, 64
MOST_NUMBER = 1_000_000
"""No whole number is larger: of most methods it is a number of passes."""
_TOKEN = re.compile(
    r"(?P<space>[ \t\r\n]+)"
    r"|(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<dotted>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*\.[0-9][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*)"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)"
    r"|(?P<text>'(?:[^'\\\n\r\0]|\\[^\n\r\0])*'|\"(?:[^\"\\\n\r\0]|\\[^\n\r\0])*\")"
    r"|(?P<sign>\*\*|[-+*/(),=\[\]])"
)
_ESCAPE = re.compile(r"\\(?:(?P<digits>x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})|(?P<one>.))")
_LETTERS = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", "'": "'", '"': '"'}
_STRENGTH = {"+": 1, "-": 1, "*": 2, "/": 2, "**": 4}
_NEGATIVE = 3
_REASONS = {
    ".": "a formula reads no attributes; write functions as calls, such as relu(grad_cam())",
    "[": "a formula takes nothing out of a formula by [...]; leave it out",
    ":": "a formula has no slices, lambdas or named values; write out what is computed",
    "{": "a formula has no sets and dictionaries; leave the braces out",
    "%": "a formula has no remainder; it has + - * / and **",
    "@": "a formula has no matrix product; write torch.matmul(a, b)",
    "#": "a formula has no comments; leave it out",
    ";": "a formula is one expression; leave the semicolon out",
    "<": "a formula has no comparisons, and <name> stands for something of one's own that no text makes again",
    "'": "this text has no end; close it by the quotation mark that it begins with",
    '"': "this text has no end; close it by the quotation mark that it begins with",
}


@dataclass(frozen=True)
class Node:
    """A part of the text, from ``start`` to ``stop``."""

    start: int
    stop: int


@dataclass(frozen=True)
class Literal(Node):
    """A number or a text."""

    value: float | str


@dataclass(frozen=True)
class Name(Node):
    """A name alone, with dots."""

    name: str


@dataclass(frozen=True)
class Items(Node):
    """A tuple or a list."""

    items: tuple[Node, ...]
    is_list: bool


@dataclass(frozen=True)
class Call(Node):
    """A call. ``called`` is the place of its name, or of what stands for the name: ``attributions['name']``."""

    called: Name
    is_method: bool
    """True for ``attributions['name']``."""
    positional: tuple[Node, ...]
    named: tuple[tuple[Name, Node], ...]


@dataclass(frozen=True)
class Signed(Node):
    """One or two operands and a sign."""

    sign: str
    operands: tuple[Node, ...]


@dataclass(frozen=True)
class _Token(Node):
    kind: str
    text: str


@dataclass
class Parser:
    """Reads a text once, from left to right."""

    text: str
    at: int = 0
    calls: int = 0
    signs: int = 0
    depth: int = 0
    tokens: list[_Token] = field(default_factory=list)

    def tree(self) -> Node:
        """The whole text as a tree. Raises FormulaError."""
        if len(self.text) > LONGEST:
            self.fail(f"a formula has at most {LONGEST:,} characters, not {len(self.text):,}", LONGEST, len(self.text))
        self.tokens = list(self._read())
        if not self.tokens:
            self.fail("there is no formula; write one such as grad_cam()", 0, len(self.text))
        node = self._expression(0)
        if (token := self._peek()) is not None:
            self._unexpected(token)
        return node

    def fail(self, reason: str, start: int, stop: int, hint: str | None = None) -> NoReturn:
        raise FormulaError(reason, self.text, start, stop, hint)

    def _read(self) -> Iterator[_Token]:
        at = 0
        while at < len(self.text):
            match = _TOKEN.match(self.text, at)
            if match is None:
                letter = self.text[at]
                reason = _REASONS.get(letter, f"{shown(letter)!r} is no letter of formulas; use plain ASCII names")
                self.fail(reason, at, at + 1)
            if match.lastgroup == "dotted":  # as layers have
                reason = f"{shown(match.group())} is no name of formulas; a text stands in quotation marks"
                self.fail(reason, at, match.end(), repr(match.group()))
            if match.lastgroup != "space":
                yield _Token(at, match.end(), str(match.lastgroup), match.group())
            at = match.end()

    def _peek(self) -> _Token | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def _next(self) -> _Token:
        token = self._peek()
        if token is None:
            self.fail("the formula ends too early; write what is missing", len(self.text), len(self.text))
        self.at += 1
        return token

    def _take(self, sign: str) -> bool:
        token = self._peek()
        if token is None or token.kind != "sign" or token.text != sign:
            return False
        self.at += 1
        return True

    def _unexpected(self, token: _Token) -> NoReturn:
        before = self.tokens[self.at - 1] if self.at else None
        if token.text == "[":
            self.fail(_REASONS["["], token.start, token.stop)
        if before is not None and before.kind in ("name", "number", "text") and token.kind != "sign":
            words, way_out = f"{shown(before.text)} {shown(token.text)}", "put a sign or a comma between"
            if before.stop == token.start and before.kind == "number":
                way_out = "a number is written as 1000, 0.5 or 1e-3"
            elif before.stop == token.start and token.kind == "text":
                way_out = "a text begins with its quotation mark"
            self.fail(f"two words follow each other, {words!r}; {way_out}", token.start, token.stop)
        if token.text == "=":
            self.fail("= names an argument inside of a call, such as grad_cam(layer=3)", token.start, token.stop)
        self.fail(f"{shown(token.text)!r} can't stand here; a name, a number or ( can", token.start, token.stop)

    def _nested(self, token: _Token) -> None:
        self.depth += 1
        if self.depth > DEEPEST:
            self.fail(f"a formula is at most {DEEPEST} levels deep; write it in parts", token.start, token.stop)

    def _count_sign(self, token: _Token) -> None:
        self.signs += 1
        if self.signs > MOST_SIGNS:
            self.fail(f"a formula has at most {MOST_SIGNS} signs; write it in parts", token.start, token.stop)

    def _expression(self, least: int) -> Node:
        """What stands until a sign that binds less than ``least``."""
        node = self._operand()
        while (token := self._peek()) is not None and token.kind == "sign" and token.text in _STRENGTH:
            strength = _STRENGTH[token.text]
            if strength < least:
                break
            self.at += 1
            self._count_sign(token)
            self._nested(token)
            # the power binds what is on its right first, the other signs what is on their left
            right = self._expression(_NEGATIVE if token.text == "**" else strength + 1)
            self.depth -= 1
            node = Signed(node.start, right.stop, token.text, (node, right))
        return node

    def _operand(self) -> Node:
        token = self._next()
        if token.kind == "number":
            return Literal(token.start, token.stop, self._number(token))
        if token.kind == "text":
            return Literal(token.start, token.stop, self._string(token))
        if token.kind == "name":
            return self._name(token)
        if token.text == "-":
            return self._negative(token)
        if token.text in ("(", "["):
            return self._bracket(token)
        if token.text == "+":
            self.fail("a plus before a value does nothing; leave it out", token.start, token.stop)
        if token.text in ("*", "**"):
            self.fail("a formula takes no arguments with stars; write each argument", token.start, token.stop)
        self.at -= 1
        self._unexpected(token)

    def _negative(self, token: _Token) -> Node:
        self._nested(token)
        operand = self._expression(_NEGATIVE)
        self.depth -= 1
        if isinstance(operand, Literal) and not isinstance(operand.value, str):
            return Literal(token.start, operand.stop, -operand.value)
        self._count_sign(token)
        return Signed(token.start, operand.stop, "-", (operand,))

    def _bracket(self, token: _Token) -> Node:
        closing = ")" if token.text == "(" else "]"
        self._nested(token)
        items: list[Node] = []
        is_tuple = closing == "]"
        while not self._take(closing):
            if len(items) == MOST_ITEMS:
                self.fail(f"a list has at most {MOST_ITEMS} items", token.start, token.stop)
            items.append(self._expression(0))
            if self._take(","):
                is_tuple = True
            elif not self._is_next(closing):
                self._unexpected(self._next_or_end())
        self.depth -= 1
        stop = self.tokens[self.at - 1].stop
        if items and not is_tuple:
            return items[0]
        return Items(token.start, stop, tuple(items), closing == "]")

    def _is_next(self, sign: str) -> bool:
        token = self._peek()
        return token is not None and token.kind == "sign" and token.text == sign

    def _next_or_end(self) -> _Token:
        token = self._next()
        self.at -= 1
        return token

    def _name(self, token: _Token) -> Node:
        name = Name(token.start, token.stop, token.text)
        is_method = False
        if token.text in ("attributions", "cnnviz.attributions") and self._take("["):
            chosen = self._next()
            if chosen.kind != "text" or not self._is_next("]"):
                self.fail("a method's name stands here, such as attributions['grad_cam']()", chosen.start, chosen.stop)
            stop = self._next().stop
            name, is_method = Name(token.start, stop, self._string(chosen)), True
        if not self._is_next("("):
            if is_method:
                self.fail("a method is called; write () behind it", name.start, name.stop)
            return name
        bracket = self._next()
        self.calls += 1
        if self.calls > MOST_CALLS:
            self.fail(f"a formula has at most {MOST_CALLS} calls; write it in parts", token.start, token.stop)
        self._nested(bracket)
        positional: list[Node] = []
        named: list[tuple[Name, Node]] = []
        while not self._take(")"):
            if len(positional) + len(named) == MOST_ITEMS:
                self.fail(f"a call has at most {MOST_ITEMS} arguments", name.start, name.stop)
            self._argument(positional, named)
            if not self._take(",") and not self._is_next(")"):
                self._unexpected(self._next_or_end())
        self.depth -= 1
        return Call(token.start, self.tokens[self.at - 1].stop, name, is_method, tuple(positional), tuple(named))

    def _argument(self, positional: list[Node], named: list[tuple[Name, Node]]) -> None:
        token = self._peek()
        follows = self.tokens[self.at + 1] if self.at + 1 < len(self.tokens) else None
        if token is None or token.kind != "name" or follows is None or follows.text != "=":
            value = self._expression(0)
            if named:
                self.fail("an argument without a name stands before those with names", value.start, value.stop)
            positional.append(value)
            return
        if "." in token.text:
            self.fail(f"{shown(token.text)!r} is no name of an argument", token.start, token.stop)
        if any(token.text == name.name for name, _ in named):
            self.fail(f"the argument {shown(token.text)} is given twice; leave one out", token.start, token.stop)
        self.at += 2
        named.append((Name(token.start, token.stop, token.text), self._expression(0)))

    def _number(self, token: _Token) -> float:
        if token.text.isdecimal():
            # compared as text first: a number of many digits takes long to read
            digits = token.text.lstrip("0") or "0"
            if len(digits) > len(str(MOST_NUMBER)) or int(digits) > MOST_NUMBER:
                self.fail(
                    f"{shown(token.text)} is too large; a whole number in a formula is at most {MOST_NUMBER:,}",
                    token.start,
                    token.stop,
                )
            return int(digits)
        number = float(token.text)
        if number == float("inf"):
            self.fail(f"{shown(token.text)} is infinite; give a number that is not", token.start, token.stop)
        return number

    def _string(self, token: _Token) -> str:
        for at, letter in enumerate(token.text, token.start):
            if not letter.isprintable():
                self.fail(f"there is an unprintable character in this text; write it as {letter!a}", at, at + 1)
        return _ESCAPE.sub(lambda found: self._letter(found, token.start), token.text[1:-1])

    def _letter(self, found: re.Match[str], start: int) -> str:
        """What a \\ and what follows it stand for."""
        digits = found["digits"]
        number = int(digits[1:], 16) if digits else 0
        if found["one"] not in _LETTERS and (not digits or number > 0x10FFFF or 0xD800 <= number < 0xE000):
            place = start + 1 + found.start()
            self.fail("this \\ means nothing; write \\\\ for a \\ itself", place, place + len(found[0]))
        return chr(number) if digits else _LETTERS[found["one"]]
