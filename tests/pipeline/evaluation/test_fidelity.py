import numpy as np

from onnxpress.evaluation.fidelity import Fidelity, without_padding


def test_padding_counts_in_no_output_that_has_its_axes() -> None:
    outputs = {"hidden": np.ones((2, 3, 4), np.float32), "pooled": np.ones((2, 4), np.float32)}
    outputs["hidden"][1, 2] = np.nan
    mask = np.array([[1, 1, 1], [1, 1, 0]])
    kept = without_padding(outputs, {"attention_mask": mask})
    assert kept["hidden"].sum() == 5 * 4 and kept["pooled"].sum() == 8
    same = without_padding(outputs, {"input_ids": mask})
    assert np.isnan(same["hidden"]).any()


def test_sqnr_is_that_of_the_worst_output() -> None:
    fidelity = Fidelity()
    reference = {"a": np.full((1, 4), 10.0), "b": np.full((1, 4), 1.0)}
    fidelity.update(reference, {"a": np.full((1, 4), 10.1), "b": np.full((1, 4), 1.1)})
    assert fidelity.sqnr_db is not None
    np.testing.assert_allclose(fidelity.sqnr_db, 20.0)
