"""Which values of a large tensor are counted: evenly spread, without a period, the same everywhere."""

import hashlib

import numpy as np
import pytest

from onnxpress_calibration import sampling


@pytest.mark.parametrize("count", [sampling.LIMIT, sampling.LIMIT + 1, 788_544, 10**9 + 7])
def test_one_position_in_each_stretch(count: int) -> None:
    chosen = sampling.positions(count)
    ends = np.array([stretch * count // sampling.LIMIT for stretch in range(sampling.LIMIT + 1)])
    assert (chosen >= ends[:-1]).all() and (chosen < ends[1:]).all()


@pytest.mark.parametrize("row", [384, 512, 1536, 224])
def test_every_channel_has_its_share(row: int) -> None:
    shares = np.bincount(sampling.positions(row * 1024) % row, minlength=row)
    assert shares.min() > 0.5 * shares.mean() and shares.max() < 1.6 * shares.mean()


def test_the_choice_is_fixed_for_ever() -> None:
    digest = hashlib.sha256(sampling.positions(1_000_003).astype("<i8").tobytes()).hexdigest()
    assert digest == "a54a1eec2368c2e7fb6beb07a6ba193ded595a45186e64b315c5ae8130f1a6a4"
