"""Accuracy on labelled data, and fidelity to the float model without labels: `evaluate.evaluate`."""
