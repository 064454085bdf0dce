"""Activation statistics, calibrators (ranges from statistics) and data sources.

A leaf: it imports neither ``onnxpress`` nor ``onnxpress_models``.
"""
