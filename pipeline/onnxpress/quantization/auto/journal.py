"""What a search has measured so far, in a file that survives the process: a search that was stopped continues."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnxpress.errors import OutputError


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
            with path.open("a+", encoding="utf-8") as stream:
                stream.seek(0)
                lines = stream.read().splitlines(keepends=True)
                if lines and not lines[-1].endswith("\n"):  # cut off when its process was killed
                    stream.write("\n")
        except OSError as error:
            raise OutputError(f"search journal {path}: {error.strerror}. Choose another output folder.") from error
        for line in lines:
            try:
                where, key, value = json.loads(line)
            except ValueError:
                continue
            if where == self._context:
                self._known[key] = value

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: str) -> Any:  # noqa: ANN401 - JSON
        """Return what was put under a key; None when nothing was."""
        return self._known.get(key)

    def put(self, key: str, value: Any) -> None:  # noqa: ANN401
        """Remember a JSON value (not None)."""
        self._known[key] = value
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps([self._context, key, value]) + "\n")
