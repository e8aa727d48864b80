"""stand-in until cnnviz.parse_formula is there"""

import ast
import operator
from difflib import get_close_matches
from typing import Any

from cnnviz import attributions
from cnnviz.formulas import terms


class FormulaError(ValueError):
    def __init__(self, message: str, text: str, start: int, stop: int, hint: str | None = None):
        super().__init__(message)
        self.text, self.start, self.stop, self.hint = text, start, stop, hint


OPS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def parse_formula(text: str) -> Any:
    def err(m: str, n: Any, hint: str | None = None) -> FormulaError:
        return FormulaError(m, text, n.col_offset, n.end_col_offset, hint)

    def walk(n: Any) -> Any:
        if isinstance(n, ast.Constant):
            return n.value
        if isinstance(n, ast.BinOp) and type(n.op) in OPS:
            return OPS[type(n.op)](walk(n.left), walk(n.right))
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Name):
            name = n.func.id
            made = attributions[name] if name in attributions else {"upsample": terms.upsample}.get(name)
            if made is None:
                near = get_close_matches(name, [*attributions, "upsample"], n=1)
                raise err(f"there is no method or part {name!r}", n.func, f"did you mean {near[0]}?" if near else None)
            return made(*map(walk, n.args), **{str(k.arg): walk(k.value) for k in n.keywords})
        raise err("this is no part of a formula", n)

    try:
        tree = ast.parse(text, mode="eval").body
    except SyntaxError as error:
        at = max((error.offset or 1) - 1, 0)
        raise FormulaError(f"this is no formula: {error.msg}", text, at, at + 1) from None
    return walk(tree)


def passes_at_most(formula: Any) -> int | None:
    return None
