from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.export.prepare import prepare

Build = Callable[..., ir.Model]
Run = Callable[..., list[np.ndarray]]


@pytest.mark.parametrize("computed", [True, False])
def test_a_range_reads_scalars(build: Build, run: Run, computed: bool) -> None:
    """Which onnxruntime insists on as soon as it knows the shape: here the branch that hid it goes."""
    limit = "n" if computed else "c"
    model = build(
        f"g (int64[1] n) => (int64[M] y) {{ t = Constant<value = bool {{1}}>() c = Constant<value_ints = [4]>() "
        f"l = If (t) <then_branch = p () => (int64[1] a) {{ a = Identity({limit}) }}, "
        "else_branch = q () => (int64[1] b) { b = Identity(n) }> "
        "z = Constant<value_int = 0>() o = Constant<value_int = 1>() y = Range(z, l, o) }"
    )
    made = prepare(model).model
    assert run(made, {"n": np.array([4])})[0].tolist() == [0, 1, 2, 3]
    assert not prepare(made).changed
