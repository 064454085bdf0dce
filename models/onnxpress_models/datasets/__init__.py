"""Real labelled data that the reference models are trained, calibrated and judged on; one file each.

A data set is a module with functions without arguments, one per split, that return a dict of arrays: the model's inputs
by name, samples on axis 0, and labels in ``y``. Its public functions are its splits.
"""
