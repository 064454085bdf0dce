"""Finished steps on disk: one folder each, named by everything that its result depends on.

A folder appears in one rename, complete; a step whose folder is there is not done again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onnxpress import artifact
from onnxpress.artifact import Artifact, Edit
from onnxpress.errors import DataError, ModelError, UsageError
from onnxpress.files import dumps, write_text
from onnxpress.progress import Progress
from onnxpress.provenance import code_sha256, versions
from onnxpress.results.base import read_json
from onnxpress.results.report import Record
from onnxpress.scratch import explained, scratch_folder
from onnxpress_calibration.documents import JSON_BYTES, DocumentError, parse_json, read_bytes

MODEL_FILE = "model.onnx"
RECORD_FILE = "step.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A step that is finished: its artifact and what is known of it."""

    artifact: Artifact
    record: Mapping[str, Any]
    """``step``, ``options``, ``facts``, ``skipped``, ``changed``: the content of step.json."""
    cached: bool


def stored(
    store: Path,
    entry: dict[str, Any],
    work: Callable[[], tuple[Edit, dict[str, Any]]],
    progress: Progress,
    *,
    text: str,
) -> Done:
    """Return a step from the store, or do its work and store it in one rename."""
    done = find(store, entry)
    if done is not None:
        progress.done(f"{text}: unchanged")
        return done
    entry = entry | {"versions": versions()}
    home = store / key(entry)
    shutil.rmtree(home, ignore_errors=True)
    with progress.task(text):
        begin = time.monotonic()
        edit, extra = work()
        with explained(f"run folder {store.parent}"), scratch_folder(store) as scratch:
            new = scratch / home.name
            new.mkdir()
            made = artifact.save(edit.model, new / MODEL_FILE, step=entry)
            record = entry | {
                "facts": dict(edit.facts),
                "changed": list(edit.changed),
                "skipped": [asdict(skip) for skip in edit.skipped],
                "artifact_sha256": made.sha256,
                "seconds": round(time.monotonic() - begin, 3),
            }
            write_text(new / RECORD_FILE, dumps(record | extra))
            new.rename(home)
    done = _read(home)
    assert done is not None  # noqa: S101 - just written
    return Done(artifact=done.artifact, record=done.record, cached=False)


def find(store: Path, entry: Mapping[str, Any]) -> Done | None:
    """Return a finished step; None when it is not there or not what was written."""
    return _read(store / key({**entry, "versions": versions()}))


def times_s(store: Path) -> Iterator[tuple[Mapping[str, Any], float]]:
    """Yield the record of every finished step, the oldest first, and how many seconds it took."""
    for file in sorted(store.glob(f"*/{RECORD_FILE}"), key=lambda file: file.stat().st_mtime_ns):
        try:
            record = parse_json(read_bytes(file, JSON_BYTES))
        except (OSError, DocumentError):
            continue
        if isinstance(record, Mapping) and isinstance(record.get("seconds"), float):
            yield record, record["seconds"]


def key(entry: Mapping[str, Any]) -> str:
    """Name what an entry and this code make."""
    return hashlib.sha256(json.dumps({**entry, "code": code_sha256()}, sort_keys=True).encode()).hexdigest()[:20]


def _read(home: Path) -> Done | None:
    """Return a stored step; None when it is not there or not what was written."""
    try:
        record = read_json(home / RECORD_FILE, Record, "step", advice="It is done again.").document
        stored = artifact.read(home / MODEL_FILE)
    except (DataError, UsageError, ModelError):
        return None
    return Done(artifact=stored, record=record, cached=True) if stored.sha256 == record["artifact_sha256"] else None


def link(made: Artifact, home: Path) -> None:
    """Show an artifact under its variant's name: hard links where the file system has them, else copies."""
    with explained(f"run folder {home.parent}"):
        home.mkdir(exist_ok=True)
        names = {file.name for file in made.path.parent.iterdir() if file.name != RECORD_FILE}
        with scratch_folder(home) as scratch:
            for name in sorted(names, key=lambda name: name == MODEL_FILE):  # the model last, when its data is there
                try:
                    (scratch / name).hardlink_to(made.path.parent / name)
                except OSError:
                    shutil.copyfile(made.path.parent / name, scratch / name)
                (scratch / name).replace(home / name)
        for old in home.glob("model.*.data"):  # of the model that was here before
            if old.name not in names:
                old.unlink()
