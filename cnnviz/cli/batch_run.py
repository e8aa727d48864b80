"""What the command for a data set does, and what it prints."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import typer

from cnnviz.cli import value_parsing
from cnnviz.cli.errors import PARTLY, Interrupted, exit_status, print_failure, print_line, print_note
from cnnviz.cli.method_names import method_names
from cnnviz.cli.method_options import converted, named_methods
from cnnviz.cli.prepared import PreparedCommand, loaded, prepared, with_settings
from cnnviz.cli.progress import progress
from cnnviz.cli.targets import read_target
from cnnviz.datasets.asking import asked
from cnnviz.datasets.estimate import estimated
from cnnviz.datasets.plan import BatchPlan, read_plan
from cnnviz.datasets.prepared_run import PreparedRun, check_given_up, prepare_run, shard_of_launcher
from cnnviz.datasets.question import BatchQuestion, true_class
from cnnviz.datasets.shards.kept_maps import MapStorage
from cnnviz.datasets.sources.label_classes import class_of_labels
from cnnviz.datasets.sources.source_kinds import source_of
from cnnviz.datasets.stored.batch_view import open_batch
from cnnviz.datasets.stored.rows import write_table
from cnnviz.datasets.workers.work import Done, Event, Lost, RunError
from cnnviz.explanations.options import ExplainOptions
from cnnviz.registry.registry import backends, metrics, renderers

SHOWN = 5  # failures of which each has a line


@dataclass(frozen=True)
class Asked:
    """What is asked about the pictures, beside the model and the methods."""

    target: Any
    storage: MapStorage
    threads: int | None
    shard_size: int | None


@dataclass(frozen=True)
class BatchCommand:
    """One command line for a data set."""

    command: PreparedCommand
    words: Sequence[str]
    """The source, and the folder of the run last."""
    methods: Sequence[str]
    metrics: Sequence[str]
    backend: str
    asked: Asked | None = None

    @classmethod
    def of(
        cls,
        context: typer.Context,
        words: Sequence[str],
        method: Sequence[str] | None,
        metric: Sequence[str] | None,
        backend: str,
        settings: Mapping[str, str | None],
        options: Mapping[str, Any],
        render: str | None = None,
    ) -> BatchCommand:
        """Tell the words apart. Raises ValueError, TypeError or LookupError for what there is not."""
        names = method_names(method, "grad_cam")
        measured = value_parsing.names(metric, "") if metric else []
        words = with_settings(words, **settings)
        known = [*named_methods(names, words), *(metrics[name] for name in measured), backends[backend]]
        command = prepared(context, words, known, options, [] if render is None else [renderers[render]])
        if not command.arguments or not all(command.arguments):
            raise ValueError("name what is explained, and the folder of the run: cnnviz batch photos/ out/")
        return cls(command, command.arguments, names, measured, backend)

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return Path(self.words[-1])

    def asking(
        self,
        target: str | None,
        of_label: bool,
        kept: Any,
        channels: Any,
        longest: int | None,
        threads: int | None,
        shard_size: int | None,
    ) -> BatchCommand:
        """With what is asked. Raises ValueError for two targets."""
        if of_label and target is not None:
            raise ValueError("--true-class explains the label of each picture, and --target says another; say one")
        chosen = true_class if of_label else read_target(target)
        return replace(self, asked=Asked(chosen, MapStorage(kept, channels, longest), threads, shard_size))

    def question(self, there: BatchPlan | None) -> BatchQuestion:
        """The question of this command, with the fixed values of a plan that is there."""
        assert self.asked is not None
        options = dict(self.command.options)
        if options["device"] == "auto" and there is not None:
            options["device"] = there.identity["fixed"]["device"]
        model = loaded(options)
        command = replace(self.command, options=options)
        command.__dict__["model"] = model
        explain = ExplainOptions(**command.explain_options)
        return asked(
            model,
            command.attributions(self.methods),
            {name: metrics[name](**converted(metrics[name], command.settings)) for name in self.metrics},
            explain,
            self.asked.storage,
            self.asked.target,
            {},
            batch_size=options["batch"],
            threads=self.asked.threads,
            there=there,
        )

    def prepared(self, told: Mapping[str, Any], add: bool) -> PreparedRun:
        """Plan the run, or go on with the one that is there."""
        assert self.asked is not None
        quiet, source, notes = self.command.options["quiet"], self.source(told), list[str]()
        run = prepare_run(
            self.folder,
            source,
            self.question,
            self.asked.shard_size,
            add,
            self.command.options["jobs"],
            tell=notes.append,
            remake=self._again,
        )
        for note in () if quiet else (*getattr(source, "notes", ()), *notes):
            print_note(note)
        return run

    def source(self, told: Mapping[str, Any]) -> Any:
        """What is explained. Raises ValueError where only the folder of the run is named."""
        given = list(self.words[:-1])
        if not given:
            raise ValueError(
                f"name what is explained before the folder of the run: cnnviz batch photos/ {self.words[0]}"
            )
        return source_of(given[0] if len(given) == 1 else given, **told)

    def run(self, told: Mapping[str, Any], add: bool, shard_of: str | None, log: str) -> int:
        """Compute what is missing. Returns the exit status."""
        quiet = self.command.options["quiet"]
        place = read_shard_of(shard_of) or shard_of_launcher()
        method = backends[self.backend]
        backend = method(**converted(method, self.command.settings))
        run = self.prepared(told, add)
        plan = run.plan
        before = sum(map(plan.size_of, plan.committed()))
        if before and not quiet:
            print_note(f"{before:,} of {len(plan):,} items are done already")
        with progress("explaining", quiet or log == "json", len(plan)) as step:
            listener = Listener(plan, before, step, log == "json")
            try:
                given_up = run.compute(backend, place, listener, self._interrupted)
            except KeyboardInterrupt:
                done = sum(map(plan.size_of, plan.committed()))
                raise Interrupted(f"{done:,} of {len(plan):,} items are done; the same command goes on") from None
        failed, missing = self._told(plan)
        if missing == 0:
            write_table(plan.folder)
        if given_up:
            try:
                check_given_up(plan, given_up)
            except RunError as error:
                print_failure(str(error))
        return exit_status(len(plan), min(len(plan), failed + missing))

    def estimate(self, told: Mapping[str, Any]) -> int:
        """Measure a few items, and print what the run will take."""
        source, question = self.source(told), self.question(None)
        labels = class_of_labels(source, source.items(), question.model.categories, question.model.num_classes)
        found = estimated(question, source, labels.numbers, self.command.options["jobs"])
        failed = f", {found.failed} of them failed" if found.failed else ""
        measured = f"{found.measured} were measured with one worker{failed}"
        if not found.measured:
            measured = "one batch takes long, and was measured in part; maps count as large as the input"
        print_line(f"{found.items:,} items; {measured}")
        print_line(f"{amount(found.bytes)} for each item, {amount(found.total_bytes)} in all")
        here = max(1, (os.cpu_count() or 1) // question.fixed.threads)
        for workers in sorted({1, here, 8, 64}):
            where = ", as this machine has processors" if workers == here and question.fixed.device == "cpu" else ""
            rate = found.rate(workers)
            each_second = f"{rate:,.1f}" if rate >= 10 else f"{rate:.2g}"
            time_of_all = duration(found.hours(workers))
            print_line(f"{workers} worker{'s' * (workers > 1)}: {each_second} items per second, {time_of_all}{where}")
        return 0

    def status(self) -> int:
        """Tell how far the run is."""
        try:
            plan = read_plan(self.folder)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{error}; to explain pictures name the folder of the run behind them: cnnviz batch photos/ out/"
            ) from None
        failed, missing = self._told(plan)
        return PARTLY if failed or missing else 0

    def _interrupted(self) -> None:
        print_note("finishing the shards in work; Ctrl-C again ends at once")

    def _told(self, plan: BatchPlan) -> tuple[int, int]:
        """Tell how it went: how many items failed or lack metrics, and how many are missing."""
        there = plan.committed()
        missing = len(plan) - sum(map(plan.size_of, there))
        batch = open_batch(plan.folder)
        failed, unmeasured = batch.failed, batch.unmeasured
        for rows, what, name in ((failed, "failed", "failed"), (unmeasured, "lack metrics", "unmeasured")):
            for row in rows[:SHOWN]:
                print_failure(f"{row['id']}: {row['error']}")
            if len(rows) > SHOWN:
                print_failure(
                    f"{len(rows) - SHOWN:,} more items {what}; cnnviz.open_batch('{plan.folder}').{name} lists them"
                )
        if not self.command.options["quiet"]:
            size = sum(plan.shard_path(shard).stat().st_size for shard in there)
            more = f", {missing:,} are missing" if missing else ""
            more += f", {len(unmeasured):,} lack metrics" if unmeasured else ""
            print_line(
                f"{plan.folder}: {len(plan) - missing - len(failed):,} of {len(plan):,} items explained, "
                f"{len(failed):,} failed{more}; {len(there)} shard{'s' * (len(there) != 1)}, {amount(size)}"
            )
        return len(failed) + len(unmeasured), missing

    def _again(self) -> BatchQuestion:
        return self.question(read_plan(self.folder.absolute()))


@dataclass(eq=False)
class Listener:
    """Hears what happens, moves the bar and prints lines."""

    plan: BatchPlan
    done: int
    step: Callable[[int, int], None]
    as_json: bool

    def __post_init__(self) -> None:
        self.started = time.monotonic()
        self.computed = 0
        self.is_space_told = False

    def __call__(self, event: Event) -> None:
        if isinstance(event, Lost) and event.task.probe is None:
            print_note(f"shard {event.task.shard}: {event.reason}; it is computed again")
        if not isinstance(event, Done) or event.task.probe is not None:
            return
        told = event.summary
        self.done += told["items"]
        self.computed += 0 if told.get("there") else told["items"]
        self.step(self.done, len(self.plan))
        self._tell_space(told)
        if self.as_json:
            rate = self.computed / max(1e-9, time.monotonic() - self.started)
            line = {
                **{key: told[key] for key in ("shard", "items", "failed", "bytes", "seconds") if key in told},
                "done": self.done,
                "of": len(self.plan),
                "items_per_second": round(rate, 2),
                "seconds_left": round((len(self.plan) - self.done) / rate, 1) if rate else None,
            }
            print_line(json.dumps(line))

    def _tell_space(self, told: Mapping[str, Any]) -> None:
        """Once the first shard is there: is there space for the others?"""
        if self.is_space_told or not told.get("bytes"):
            return
        self.is_space_told = True
        needed = told["bytes"] / told["items"] * (len(self.plan) - self.done)
        free = shutil.disk_usage(self.plan.folder).free
        if needed > free:
            print_note(
                f"the disk of '{self.plan.folder}' has {amount(free)} free, and the run needs about {amount(needed)} "
                "more; it ends when the disk is full, and the same command goes on then"
            )


def read_shard_of(text: str | None) -> tuple[int, int] | None:
    """``3/8`` as numbers. Raises ValueError for what is no place among so many."""
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if match is None or not int(match[1]) < int(match[2]):
        raise ValueError(f"--shard-of is I/N, the number of this process from 0 and how many there are, not {text!r}")
    return int(match[1]), int(match[2])


def duration(hours: float) -> str:
    """Hours as people read them."""
    seconds = hours * 3600
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{hours:,.1f} hours"


def amount(size: float) -> str:
    """Bytes as people read them."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"
