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


def test_a_changed_class_costs_what_the_reference_gave_it_less() -> None:
    """Probabilities count as they are, scores by their softmax, by the formula of two classes: tanh(margin / 2)."""
    fidelity = Fidelity()
    fidelity.update({"p": np.array([[0.7, 0.3], [0.2, 0.8]])}, {"p": np.array([[0.4, 0.6], [0.1, 0.9]])})
    np.testing.assert_allclose(fidelity.expected_drop, 100 * (0.7 - 0.3) / 2)
    scores = Fidelity()
    scores.update({"s": np.array([[500.0, 499.0]])}, {"s": np.array([[1.0, 2.0]])})
    np.testing.assert_allclose(scores.expected_drop, 100 * np.tanh(0.5))
    assert Fidelity().expected_drop is None
