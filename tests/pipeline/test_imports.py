"""onnx_ir without sympy, until somebody computes with symbols."""

import subprocess
import sys

import pytest

ARITHMETIC = """
import sys
import onnxpress
import onnx_ir as ir
assert "sympy" not in sys.modules
assert str(ir.SymbolicDim("N") * 2 + 1) == "2*N + 1"
assert ir.SymbolicDim("max(N, 4) - floor(N / 2)").evaluate({"N": 6}) == 3
import sympy.core
assert sympy.core is sys.modules["sympy"].core and ir.SymbolicDim(sympy.Symbol("K") + 1).value == "K + 1"
"""
SUBPACKAGE_FIRST = """
import sys
import onnxpress
import onnx_ir as ir
from sympy.core import Symbol
import sympy
assert Symbol is sympy.Symbol and ir.SymbolicDim(Symbol("K")).value == "K"
"""
IMPORTED_BEFORE = """
import sympy, sys
import onnxpress
import onnx_ir as ir
assert sys.modules["sympy"] is sympy and str(ir.SymbolicDim("N") + 1) == "N + 1"
"""


@pytest.mark.parametrize("program", [ARITHMETIC, SUBPACKAGE_FIRST, IMPORTED_BEFORE])
def test_symbols_are_the_real_ones(program: str) -> None:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
