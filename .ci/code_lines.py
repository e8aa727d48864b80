"""How many lines of code the package, the plugins and the benchmarks have; docstrings, comments, blank lines apart."""

from __future__ import annotations

import argparse
import ast
import io
import tokenize
from pathlib import Path

FOLDERS = ("cnnviz", "plugins", "benchmarks")
LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def lines_of_code(source: str) -> int:
    """The lines that hold a token of code."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    lines = {line for token in tokens if token.type not in LAYOUT for line in range(token.start[0], token.end[0] + 1)}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def main() -> None:
    """Print the count of each folder, and their sum."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", nargs="?", type=Path, default=Path(__file__).parents[1], help="of a checkout")
    root = parser.parse_args().root
    counts = {
        folder: sum(lines_of_code(file.read_text()) for file in (root / folder).rglob("*.py")) for folder in FOLDERS
    }
    for folder, count in (counts | {"together": sum(counts.values())}).items():
        print(f"{folder:10} {count:6}")


if __name__ == "__main__":
    main()
