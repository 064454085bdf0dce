"""Exported programs (``.pt2``), read so that nothing in the file runs.

``torch.export.load`` unpickles example inputs, constants and some weights, loads compiled code, evaluates the
expressions of sizes as Python, looks operators up by name anywhere in torch, and generates code with the names of the
file in it. Here an archive is read first and written again with what a plain network needs: the graph, in which every
text was checked, and its tensors as plain bytes. Only that copy is given to torch. Example inputs are left out;
whatever else would have to be unpickled is refused.

The format: torch/export/pt2_archive and torch/_export/serde/schema.py of PyTorch 2.9 and newer.
"""

from __future__ import annotations

import ast
import json
import math
import re
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from onnxpress.errors import ModelError
from onnxpress_calibration.archives import Archive
from onnxpress_calibration.errors import DataError

if TYPE_CHECKING:
    import torch

AGAIN = "Write it again with torch.export.save, by the installed version of torch."
MODEL = "models/model.json"
KINDS = {"weights": "data/weights/", "constants": "data/constants/"}
MOST_TEXT, MOST_DEPTH = 1 << 26, 200
"""Bytes of JSON, and how deep it may nest."""
MOST_EXTRA = 1 << 24
"""A tensor may have so many elements more than are stored for it: its strides may repeat them."""
MOST_EXPRESSION, MOST_POWER = 10_000, 64
COPY_BYTES = 1 << 20

NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)?")
DOTTED = re.compile(r"((?!__)[A-Za-z0-9_]+(\.(?!__)[A-Za-z0-9_]+)*)?")
NUMBER = re.compile(r"-?\d{1,20}(\.\d{1,20})?(e[+-]?\d{1,3})?")
SYMBOL = re.compile(r"[a-z]{1,3}\d+|oo|int_oo|L")
PAYLOAD = re.compile(r"(weight|tensor)_\d+")
OPERATOR = re.compile(
    r"torch\.ops\.(aten|prims|quantized_decomposed|onnx|onnx_symbolic)\.(?!\w*file|save\b|load\b)"
    r"([a-z]\w*|_[a-z]\w*|__i?(and|or|xor|lshift|rshift)__)\.[A-Za-z]\w*"
    r"|torch\.ops\.torchvision\.(nms|roi_align|roi_pool|ps_roi_align|ps_roi_pool|deform_conv2d)\.default"
    r"|torch\.ops\.higher_order\.(cond|while_loop|scan|map_impl|associative_scan|wrap_with_set_grad_enabled"
    r"|wrap_with_autocast|auto_functionalized|auto_functionalized_v2|out_dtype|flex_attention|invoke_subgraph)"
    r"|torch\.sym_\w+|torch\._sym_sqrt"
    r"|math\.(ceil|floor|trunc)"
    r"|_operator\.(add|sub|mul|truediv|floordiv|mod|pow|neg|pos|eq|ne|lt|le|gt|ge|and_|or_|lshift|rshift|getitem)",
    re.ASCII,
)
"""What a node may call: operators that compute on tensors, none that touches files or runs a function by name."""
FUNCTION = re.compile(
    r"Symbol|Integer|Float|Rational|Add|Mul|Pow|Max|Min|max|min|Abs|floor|ceiling|And|Or|Not|Eq|Ne|Equality|Unequality"
    r"|Gt|Ge|Lt|Le|StrictGreaterThan|GreaterThan|StrictLessThan|LessThan|Piecewise|ExprCondPair|Tuple|FloorDiv"
    r"|ModularIndexing|Where|PythonMod|Mod|CleanDiv|CeilToInt|FloorToInt|CeilDiv|LShift|RShift|PowByNatural|FloatPow"
    r"|FloatTrueDiv|IntTrueDiv|IsNonOverlappingAndDenseIndicator|TruncToFloat|TruncToInt|RoundToInt|RoundDecimal"
    r"|ToFloat|Identity"
)
"""What an expression of sizes may call."""
GROWING = frozenset({"Pow", "PowByNatural", "FloatPow", "LShift"})
METHODS = frozenset({"size", "stride", "storage_offset"})
SYNTAX = (
    *(ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Call, ast.keyword, ast.Name, ast.Load),
    *(ast.Constant, ast.Subscript, ast.Attribute, ast.Tuple, ast.operator, ast.unaryop, ast.boolop, ast.cmpop),
)
CONTAINERS = frozenset({"builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"})
METADATA = ("stack_trace", "nn_module_stack", "torch_fn")
"""What a node remembers of the code it comes from, as plain text: messages name the user's line."""


def load(path: Path) -> torch.export.ExportedProgram:
    """Load an exported program without running anything that its file holds.

    Raises:
        ModelError: it is no archive of one program, is damaged, needs unpickling, holds compiled code, or holds text
            where a name, an operator or an expression of sizes must stand; says which and where.
        Exception: whatever torch raises on a program that it cannot build.
    """
    from torch.export.pt2_archive._package import load_pt2

    try:
        with Archive(path, "source", AGAIN) as archive, tempfile.SpooledTemporaryFile(max_size=MOST_TEXT) as copy:
            _rewrite(archive, copy)
            copy.seek(0)
            program: torch.export.ExportedProgram = load_pt2(copy).exported_programs["model"]
            return program
    except DataError as error:
        raise ModelError(str(error)) from error


def _rewrite(archive: Archive, copy: IO[bytes]) -> None:
    """Write an archive with the checked parts of another; members are stored as they are, never compressed."""
    folders = {name.partition("/")[0] for name in archive.members}
    if len(folders) != 1 or f"{next(iter(folders))}/{MODEL}" not in archive.members:
        raise archive.refusal(f"is no archive of one exported program (it has no {MODEL})")
    folder = f"{folders.pop()}/"
    names = {name.removeprefix(folder) for name in archive.members}
    if any(info.compress_type != zipfile.ZIP_STORED for info in archive.members.values()):
        raise archive.refusal("has compressed members, which torch does not write")
    compiled = next((name for name in sorted(names) if name.startswith("data/aotinductor/")), None)
    if compiled is not None:
        raise archive.refusal(f"holds compiled code ({compiled}), which is not run")
    if sum(name.startswith("models/") for name in names) != 1:
        raise archive.refusal("holds more than one program")
    texts = {MODEL: _json(archive, folder + MODEL)}
    _check(archive, MODEL, lambda: _graph(texts[MODEL]))
    payloads = set()
    for kind, place in KINDS.items():
        if f"{place}model.pt" in names:
            raise archive.refusal(f"has {place}model.pt, of an older format that needs pickle, which can run any code")
        name = f"{place}model_{kind}_config.json"
        texts[name] = _json(archive, folder + name)
        sizes = {info.filename.removeprefix(folder + place): info.file_size for info in archive.members.values()}
        _check(archive, name, lambda: _payloads(texts[name], sizes))  # noqa: B023 - called at once
        payloads |= {place + entry["path_name"] for entry in texts[name]["config"].values()}
    with zipfile.ZipFile(copy, "w", zipfile.ZIP_STORED) as written:
        for name, text in texts.items():
            written.writestr(f"program/{name}", json.dumps(text))
        for name in ("archive_format", "archive_version", ".data/version", "byteorder"):
            if name in names:
                written.writestr(f"program/{name}", archive.read(folder + name, 100))
        written.writestr("program/data/sample_inputs/model.pt", b"")
        for name in sorted(payloads):
            with (
                archive.open(folder + name) as source,
                written.open(f"program/{name}", "w", force_zip64=True) as target,
            ):
                while block := source.read(COPY_BYTES):
                    target.write(block)


def _json(archive: Archive, name: str) -> Any:  # noqa: ANN401 - JSON
    try:
        return json.loads(archive.read(name, MOST_TEXT))
    except (ValueError, RecursionError) as error:
        raise archive.refusal(f"member {name!r} is no JSON ({error})") from error


def _check(archive: Archive, name: str, check: Callable[[], None]) -> None:
    """Run a check of a member's JSON; what it misses or finds is one error."""
    try:
        check()
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError, OverflowError) as error:
        raise archive.refusal(f"member {name!r}: {str(error) or type(error).__name__}") from error


def _payloads(document: Mapping[str, Any], sizes: Mapping[str, int]) -> None:
    """Check the list of stored tensors; ``sizes`` are the bytes of the members, by name.

    Raises:
        ValueError: one is pickled, is not in the archive, or is larger than what is stored.
    """
    for name, entry in document["config"].items():
        _expect(DOTTED, name, "name")
        if entry["use_pickle"] is not False or entry["tensor_meta"] is None:
            raise ValueError(
                f"{name!r} is pickled, which can run any code, so it is not read; keep to plain tensors as parameters, "
                "buffers and constants"
            )
        if not PAYLOAD.fullmatch(entry["path_name"]) or entry["path_name"] not in sizes:
            raise ValueError(f"{name!r} is stored as {entry['path_name']!r}, which is not in the archive")
        _strings(entry, "", 0)
        elements = math.prod(int(size["as_int"]) for size in entry["tensor_meta"]["sizes"])
        stored = sizes[entry["path_name"]]
        if elements > stored + (MOST_EXTRA if stored else 0):
            raise ValueError(f"{name!r} has {elements:,} elements in {stored:,} bytes")


def _graph(document: dict[str, Any]) -> None:
    """Check the program's JSON, and take from it what is not needed and would be looked up or evaluated.

    Raises:
        ValueError: a text is not what may stand in its place.
    """
    document["guards_code"] = [guard for guard in document.get("guards_code", []) if _is_expression(guard)]
    document["graph_module"]["treespec_namedtuple_fields"] = {}
    document["graph_module"]["metadata"] = {}
    _strings(document, "", 0)


def _strings(value: Any, key: str, depth: int) -> None:  # noqa: ANN401 - JSON
    """Check every text in a JSON value by the key under which it stands; one that no rule knows must be a name."""
    if depth > MOST_DEPTH:
        raise ValueError(f"nested deeper than {MOST_DEPTH}")
    if isinstance(value, dict):
        if key == "metadata":
            for name in value.keys() - set(METADATA):
                del value[name]
            return
        if "as_custom_obj" in value or "custom_obj" in value:
            raise ValueError("holds a custom object, which needs pickle")
        for name, inner in value.items():
            _expect(DOTTED, name, key)
            _strings(inner, name, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _strings(inner, key, depth + 1)
    elif isinstance(value, str):
        _text(value, key)


def _text(text: str, key: str) -> None:
    if key in ("target", "as_operator"):
        _expect(OPERATOR, text, "operator")
    elif key == "expr_str":
        if not _is_expression(text):
            raise ValueError(f"expression {text[:80]!r} is not let through: it could run code")
    elif key in ("in_spec", "out_spec"):
        _container(json.loads(text)[1])
    elif key in ("parameter_name", "buffer_name", "tensor_constant_name", "user_input_name", "fqn"):
        _expect(DOTTED, text, key)
    elif key not in ("as_string", "as_strings", "guards_code", "torch_version"):
        _expect(NAME, text, key)


def _expect(pattern: re.Pattern[str], text: str, what: str) -> None:
    if not pattern.fullmatch(text):
        raise ValueError(f"{what} {text[:80]!r} is not let through: it could run code")


def _container(spec: Mapping[str, Any]) -> None:
    """Check how inputs or outputs are packed: in lists, tuples and dicts only, other types are looked up by name."""
    kind, context = spec["type"], spec["context"]
    if kind is not None and kind not in CONTAINERS:
        raise ValueError(f"inputs or outputs are packed as {str(kind)[:80]!r}; use tuples, lists and dicts")
    keys = json.loads(context) if isinstance(context, str) else context
    if keys is not None and not (isinstance(keys, list) and all(isinstance(each, (str, int)) for each in keys)):
        raise ValueError("inputs or outputs are packed with keys that are neither words nor numbers")
    for each in keys or ():
        _expect(DOTTED, str(each), "key")
    for inner in spec["children_spec"]:
        _container(inner)


def _is_expression(text: str) -> bool:
    """Tell whether a text, which torch evaluates, is one of sizes: numbers, symbols, arithmetic, functions of torch."""
    try:
        tree = ast.parse(text[: MOST_EXPRESSION + 1], mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return len(text) <= MOST_EXPRESSION and all(isinstance(n, SYNTAX) and _is_plain(n) for n in ast.walk(tree))


def _is_plain(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            return bool(NAME.fullmatch(node.value) or NUMBER.fullmatch(node.value))
        return isinstance(node.value, (int, float))
    if isinstance(node, ast.Name):
        return bool(FUNCTION.fullmatch(node.id) or SYMBOL.fullmatch(node.id))
    if isinstance(node, ast.Attribute):
        return node.attr in METHODS
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Pow, ast.LShift)):
        return _is_bounded(node.left, node.right)
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute):
            return not node.args and not node.keywords
        if not isinstance(node.func, ast.Name) or not FUNCTION.fullmatch(node.func.id):
            return False
        return node.func.id not in GROWING or (len(node.args) == 2 and _is_bounded(*node.args))
    return True


def _is_bounded(base: ast.expr, exponent: ast.expr) -> bool:
    """Tell whether a power or a shift stays small: no power of a power, and a small exponent."""
    grows = any(
        (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in GROWING)
        or isinstance(node, (ast.Pow, ast.LShift))
        for side in (base, exponent)
        for node in ast.walk(side)
    )
    values = [node.value for node in ast.walk(exponent) if isinstance(node, ast.Constant)]
    numbers = [value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
    return not grows and len(numbers) <= 1 and all(number <= MOST_POWER for number in numbers)
