"""The reference models, one file each.

A file holds ``INPUTS`` (by name, ``DTYPE:SHAPE`` with words for dynamic axes), ``OUTPUTS`` (names), ``DATASET``,
``ACCURACY`` (top-1 in percent that the committed weights reach on the test split), ``EPOCHS`` and ``LEARNING_RATE``
(see `onnxpress_models.train`), and ``build()``, which returns the network with random weights.
"""
