"""What the command ``report`` does before it writes: explains batch by batch, asks the checks, tells how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from cnnviz.cli import value_parsing
from cnnviz.cli.batch_explain import Explainer, Originals, batches, like_weights
from cnnviz.cli.errors import Interrupted
from cnnviz.cli.failures import Failures
from cnnviz.cli.prepared import PreparedCommand
from cnnviz.cli.progress import progress
from cnnviz.cli.question import Question
from cnnviz.cli.shell_words import shell_line
from cnnviz.engine.meter import metered
from cnnviz.explanations.explanation import Explanation
from cnnviz.pages.report.content import Answers, Content
from cnnviz.pages.report.depth import deeper_maps
from cnnviz.pages.report.made import Made
from cnnviz.pages.report.making import file_names
from cnnviz.pages.report.verdict import MOST, verdicts
from cnnviz.run.resolve_target import several

LOADING = ("weights", "trust_model", "mean", "std", "size", "categories", "num_classes", "key", "prefix")
"""Options that :func:`cnnviz.load_model` takes under the same names."""
CLASSES = 5
"""Explained where nobody says which."""
NO_CLASSES = (ValueError, TypeError, LookupError, RuntimeError)
"""What a network says that gives no scores of classes."""


class ReportWork:
    """Explains the pictures of a report.

    Args:
        command: the command line, told apart.
        names: of the methods.
        question: the targets.
        depth: the layers of class activation maps, as typed; None chooses them, "none" leaves them out.
        verdict: whether checks are asked.
    """

    def __init__(
        self, command: PreparedCommand, names: Sequence[str], question: Question, depth: str | None, verdict: bool
    ):
        self.command, self.question, self.verdict = command, question, verdict
        self.without_depth = depth == "none"
        self.layers = None if depth is None or self.without_depth else value_parsing.names([depth], "")
        self.attributions = command.attributions(names)
        self.first: dict[str, list[Explanation]] = {}
        """The answers for the first pictures, of which the checks are asked."""
        self.explainer: Explainer | None = None

    def __call__(self, pictures: Sequence[Path]) -> Content:
        """All that the report holds. Raises the error of a single picture, and one that all of the first have."""
        options, content, failures = self.command.options, Content(), Failures(len(pictures))
        explainer = self.command.explainer(self.attributions, None)
        self.explainer = None
        names = dict(zip(pictures, file_names(pictures), strict=True))
        alone = len(pictures) == 1
        with progress("explaining", options["quiet"], None if alone else len(pictures), alone) as step:
            try:
                with metered(step if alone else None):
                    for paths, inputs, originals in batches(
                        pictures, self.command.model, options["batch"], failures, options["jobs"]
                    ):
                        if self.explainer is None:
                            explainer = self.command.asking(explainer, self.question, pictures)
                            self.explainer = self._with_classes(explainer, inputs, pictures)
                        self._add(content, paths, inputs, originals, names, failures)
                        if not alone:
                            step(len(content.rows) + failures.count, len(pictures))
                failures.settled()
            except KeyboardInterrupt:
                raise Interrupted("nothing was written") from None
        content.failures = {file_names([Path(name)])[0]: why for name, why in failures.reasons.items()}
        return content

    def verdicts(self) -> Mapping[str, Sequence[str]] | None:
        """What the checks say of each method; None where they are not asked."""
        if not self.verdict:
            return None
        with progress("checking methods", self.command.options["quiet"], len(self.attributions)) as step:
            try:
                return verdicts(self.command.model, self.first, step)
            except KeyboardInterrupt:
                raise Interrupted("nothing was written") from None

    def made(self, words: Sequence[str], pictures: Sequence[Path], output: Path) -> Made:
        """How the report is made again: by this command line, and in Python."""
        model = self.command.model
        return Made(
            f"{model.name} ({type(model.module).__name__})",
            shell_line(["cnnviz", *words]) if words else "",
            self._python(pictures, output),
        )

    def _add(
        self,
        content: Content,
        paths: list[Path],
        inputs: Tensor,
        originals: Originals,
        names: Mapping[Path, str],
        failures: Failures,
    ) -> None:
        """Explain a batch; the pictures of one that fails are asked one by one."""
        try:
            answers = self._answers(inputs, originals, paths)
            deeper = {} if self.without_depth else deeper_maps(self.command.model, answers, self.layers)
            content.add(answers, [names[path] for path in paths], deeper)
        except Exception as error:
            if len(paths) == 1:
                failures(paths[0], error)
                return
            for item in range(len(paths)):
                one = slice(item, item + 1)
                self._add(content, paths[one], inputs[one], originals[one] if originals else None, names, failures)
            return
        failures.settled()
        self.first = self.first or {method: [each[:MOST] for each in of] for method, of in answers.items()}

    def _answers(self, inputs: Tensor, originals: Originals, paths: Sequence[Path]) -> Answers:
        assert self.explainer is not None
        found = self.explainer(inputs, originals, paths)
        labels = self.explainer.labels
        return {
            method: [found[f"{method}_{label}"] for label in labels] if labels else [found[method]]
            for method in self.attributions
        }

    def _with_classes(self, explainer: Explainer, inputs: Tensor, paths: Sequence[Path]) -> Explainer:
        """The explainer with the default classes: the most probable five, of a network that has so many."""
        asked = self.question
        if asked.targets or asked.table is not None or asked.top is not None:
            return explainer
        model = self.command.model
        try:
            count = len(model.predict(like_weights(inputs[:1], model.module), CLASSES)[0])
        except NO_CLASSES:
            return explainer  # explaining says what is wrong, if anything is
        self.question = Question(top=count) if count > 1 else asked
        return self.command.asking(explainer, self.question, paths)

    def _python(self, pictures: Sequence[Path], output: Path) -> str:
        """The same in Python, as far as it can be said in a few lines."""
        options = self.command.options
        loading = {name: options[name] for name in LOADING if options[name] not in (None, False)}
        for name, read in (("mean", value_parsing.numbers), ("std", value_parsing.numbers)):
            if name in loading:
                loading[name] = read(loading[name], f"--{name}")
        if "size" in loading:
            loading["size"] = value_parsing.size(loading["size"])
        explaining = {
            name: value for name, value in self.command.explain_options.items() if value not in (None, False, 0)
        }
        if options["preprocess"] != "crop":
            explaining["preprocess"] = options["preprocess"]
        lines = ["import cnnviz", "", f"model = cnnviz.load_model({_call(repr(options['model']), loading)})"]
        if options["dtype"] != "float32":
            lines += ["import torch", f"model.module.to(dtype=torch.{options['dtype']})"]
        methods = [_method(each) for each in self.attributions.values()]
        target, note = self._target()
        asked = {"target": Code(target)} if target else {}
        files = [str(path) for path in pictures]
        lines += [
            f"pictures = [{', '.join(map(repr, files))}]",
            f"methods = [{', '.join(methods)}]",
            *([f"# {note}"] if note else []),
            f"explanations = cnnviz.explain({_call('model, pictures, methods', asked | explaining)})",
            f"explanations.report({_call(repr(str(output)), self._reporting())})",
        ]
        return "\n".join(lines)

    def _target(self) -> tuple[str, str]:
        """The target as code, and a remark where code does not tell it."""
        asked = self.question
        if asked.top is not None:
            return f"cnnviz.targets.top({asked.top})", ""
        if asked.table is not None:
            return "", f"with target= a list, of each picture the class in {str(asked.table)!r}"
        if self.explainer is None or not asked.targets:
            return "", ""
        each = self.explainer.all_of.targets if isinstance(self.explainer.all_of, several) else [self.explainer.target]
        texts = [repr(target) for target in each]
        if not all(isinstance(target, str | int) for target in each):
            return "", f"with target= {', '.join(map(repr, asked.targets))}, as the command line says it"
        return texts[0] if len(texts) == 1 else f"cnnviz.targets.several({', '.join(texts)})", ""

    def _reporting(self) -> dict[str, Any]:
        depth = {"depth": False} if self.without_depth else {"depth": self.layers} if self.layers else {}
        return {"model": Code("model"), **depth, **({} if self.verdict else {"verdict": False})}


class Code(str):
    """A text that is code already."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _call(first: str, more: Mapping[str, Any]) -> str:
    """The arguments of a call."""
    return ", ".join([first, *(f"{name}={value!r}" for name, value in more.items())])


def _method(attribution: Any) -> str:
    """A method as code: its name, or what it prints, which is read back."""
    name, _, rest = repr(attribution).partition("(")
    return repr(name) if rest == ")" else f"cnnviz.parse_formula({repr(attribution)!r})"
