"""Arrays in a file."""

import gc
from pathlib import Path

import numpy as np

from onnxpress.pruning.spool import Spool


def test_rows_come_back_as_they_were_in_order_to_several_readers(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = [
        (random.normal(size=(2, 3)).astype(np.float32), np.arange(4).reshape(2, 2).T),
        (np.float16(random.normal(size=(0, 5))), np.array(7, np.int8)),
        (np.asfortranarray(random.normal(size=(4, 3, 2))), np.array([True, False])),
    ]
    spool = Spool(tmp_path, rows[:1])
    for row in rows[1:]:
        spool.append(*row)
    assert spool.dtypes == [np.float32, np.int64]
    for expected, *found in zip(rows, spool, spool, strict=True):  # read in turns
        for arrays in found:
            for wanted, array in zip(expected, arrays, strict=True):
                assert array.dtype == wanted.dtype and array.flags.writeable
                np.testing.assert_array_equal(array, wanted, strict=True)


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    spool = Spool(tmp_path, [(np.zeros(3),)])
    assert len(list(spool)) == 1
    del spool
    gc.collect()
    assert list(tmp_path.iterdir()) == []
