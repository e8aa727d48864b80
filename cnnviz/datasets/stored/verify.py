"""Whether a run's folder is what was written: every byte is read again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from cnnviz.datasets.shards.shard_file import verify
from cnnviz.datasets.stored.run_folder import NoAnswer, RunFolder
from cnnviz.images.reading import one_line


def faults(folder: RunFolder) -> list[str]:
    """As :meth:`cnnviz.datasets.Batch.verify`."""
    return [*_faults_of_items(folder), *_faults_of_shards(folder)]


def _faults_of_items(folder: RunFolder) -> Iterator[str]:
    for part in folder.plan.parts:
        path = folder.out / part.file
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            yield f"{path} can't be read: {one_line(error)}"
            continue
        if digest != part.sha256:
            yield f"{path} is damaged: its content is not what its sha256 in the plan tells"


def _faults_of_shards(folder: RunFolder) -> Iterator[str]:
    for shard in sorted(folder.present()):
        path = folder.plan.shard_path(shard)
        if shard >= folder.plan.shards:
            yield f"{path} is no shard of this run, which has {folder.plan.shards}; take it away"
            continue
        try:
            verify(path)
            opened = folder.opened(shard)
            opened.content()
            for slot in range(opened.items):
                folder.checked(opened, slot, folder.plan.first_of(shard) + slot)
        except NoAnswer:
            continue  # it was taken away meanwhile
        except (ValueError, OSError) as error:
            yield one_line(error)
