"""The export arrow: whatever the user has becomes a prepared, verified ONNX model."""
