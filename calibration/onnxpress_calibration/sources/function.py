"""A Python function: ``module:fn`` or ``path/to/file.py:fn``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from onnxpress_calibration.dataset import Array
from onnxpress_calibration.errors import DataError


def accepts(text: str) -> bool:
    """Tell whether this names a function."""
    module, colon, name = text.rpartition(":")
    return bool(colon) and name.isidentifier() and (module.endswith(".py") or _is_dotted(module))


def read(text: str) -> Iterator[Mapping[str, Array]]:
    """Call the function; yield its dict of arrays, or the dicts that it yields.

    Raises:
        DataError: it fails, or returns something else.

    """
    function = load_function(text)
    try:
        result = function()
        if not isinstance(result, Iterable):
            raise DataError(
                f"data {text}: returns {type(result).__name__}, not a dict of numpy arrays, nor yields such."
            )
        yield from [result] if isinstance(result, Mapping) else result
    except (DataError, MemoryError):
        raise
    except Exception as error:  # whatever a user's code raises is the user's to mend
        raise DataError(f"data {text}: fails: {type(error).__name__}: {error}") from error


def load_function(text: str) -> Callable[..., Any]:
    """Import ``module:fn`` (the current folder comes first) or ``file.py:fn``.

    Raises:
        DataError: there is no such module, file or function, or importing it fails.

    """
    where, _, name = text.rpartition(":")
    module = _load_file(Path(where), text) if where.endswith(".py") else _load_module(where, text)
    function = getattr(module, name, None)
    if not callable(function):
        raise DataError(f"{text}: {where} has no function {name!r}. It has: {', '.join(_functions(module)) or 'none'}.")
    return function  # type: ignore[no-any-return]


def _load_file(path: Path, text: str) -> object:
    if not path.is_file():
        raise DataError(f"{text}: no such file {path}. Check the path.")
    name = f"_onnxpress_user_{path.stem}_{abs(hash(path.resolve()))}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise DataError(f"{text}: {path} cannot be imported.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.resolve().parent))  # so that the file can import its neighbours
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise DataError(f"{text}: importing {path} fails: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(path.resolve().parent))
    return module


def _load_module(name: str, text: str) -> object:
    sys.path.insert(0, str(Path.cwd()))  # as `python -m` does: the user's own package wins
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise DataError(
            f"{text}: no module named {error.name!r}. Run from the folder that holds it, or give file.py:function."
        ) from error
    except Exception as error:
        raise DataError(f"{text}: importing {name} fails: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(Path.cwd()))


def _functions(module: object) -> list[str]:
    return sorted(name for name, value in vars(module).items() if callable(value) and not name.startswith("_"))


def _is_dotted(name: str) -> bool:
    return bool(name) and all(part.isidentifier() for part in name.split("."))
