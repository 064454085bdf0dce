"""What a search has measured so far, in a file that survives the process: a search that was stopped continues."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python

from onnxpress.errors import OutputError
from onnxpress.files import append_text
from onnxpress_calibration.documents import parse_json

T = TypeVar("T")


class Journal:
    """Results by key, appended line by line as JSON: ``[context, key, value]``.

    Args:
        path: The file; None keeps results in memory only. Searches in other contexts may share it.
        context: What the results depend on.

    Raises:
        OutputError: the file cannot be read or written.
    """

    def __init__(self, path: Path | None, context: Mapping[str, Any]) -> None:
        self._path = path
        self._context = hashlib.sha256(json.dumps(context, sort_keys=True).encode()).hexdigest()[:12]
        self._known: dict[str, Any] = {}
        if path is None:
            return
        try:
            text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        except OSError as error:
            raise OutputError(f"search journal {path}: {error.strerror}. Choose another output folder.") from error
        lines = text.splitlines(keepends=True)
        if lines and not any('["'.startswith(line[:2]) for line in lines):
            raise OutputError(f"search journal {path}: holds something else. Move it, or choose another output name.")
        # What was cut off when its process was killed ends here; and what cannot be written is known before the work.
        append_text(path, "\n" if lines and not lines[-1].endswith("\n") else "")
        for line in lines:
            with suppress(ValueError, TypeError):  # a damaged line costs that line only
                where, key, value = parse_json(line.encode())
                if where == self._context and isinstance(key, str):
                    self._known[key] = value

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: str, kind: type[T]) -> T | None:
        """Return what was put under a key; None when nothing of this type was."""
        try:
            return TypeAdapter(kind).validate_python(self._known.get(key))
        except ValidationError:
            return None

    def put(self, key: str, value: object) -> None:
        """Remember a value: a number, or a dataclass of them."""
        self._known[key] = to_jsonable_python(value)
        if self._path is not None:
            append_text(self._path, json.dumps([self._context, key, self._known[key]]) + "\n")
