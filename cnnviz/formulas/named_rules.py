"""Backward rules by name: those that stand in the modules of installed methods.

A rule of cnnviz's own methods is called by its name, ``guided``; another package's as ``rule('package:name')``. One
that is made in a program has no name here.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator

from cnnviz.engine.backward_rules import PLAIN, Rule
from cnnviz.registry.hooks import HOME
from cnnviz.registry.registry import attributions


def rule_text(rule: Rule) -> str | None:
    """How a rule is written; None for one that no installed method's module holds, and for a name of two rules."""
    if rule is PLAIN:
        return rule.name
    for package, found in _rules(loading=False):
        if found is rule:
            rivals = {other for owner, other in _rules(loading=False) if (owner, other.name) == (package, rule.name)}
            if len(rivals) > 1:
                return None
            return rule.name if package == HOME and rule.name.isidentifier() else f"rule('{package}:{rule.name}')"
    return None


def rule_named(text: str) -> Rule:
    """The rule of a name, ``guided`` or ``package:name``. Raises LookupError for none, and for a name of several.

    The modules of methods are loaded for it, as for a list of all methods.
    """
    if text == PLAIN.name:
        return PLAIN
    package, _, name = text.rpartition(":")
    found = {rule for owner, rule in _rules(loading=True) if (owner, rule.name) == (package or HOME, name)}
    if len(found) == 1:
        return found.pop()
    raise LookupError(f"there {'are several rules' if found else 'is no rule'} {text!r}")


def rule_names() -> list[str]:
    """The names of all rules, for hints."""
    named = [rule.name if package == HOME else f"{package}:{rule.name}" for package, rule in _rules(loading=True)]
    return sorted({PLAIN.name, *named})


def _rules(loading: bool) -> Iterator[tuple[str, Rule]]:
    """The rules in the modules of methods, with the package of each. ``loading`` imports modules that were not yet."""
    for package, name in attributions.modules():
        module = sys.modules.get(name)
        if module is None and loading:
            try:
                module = importlib.import_module(name)
            except KeyboardInterrupt:
                raise
            except BaseException:  # a plugin that does not load is not to hide the rules of others; it may exit, too
                continue
        for value in list(vars(module).values()) if module is not None else ():
            if isinstance(value, Rule) and value is not PLAIN:
                yield package, value
