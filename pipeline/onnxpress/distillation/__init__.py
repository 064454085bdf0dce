"""Distillation: a small model learns to answer like a large one, from unlabelled data and without training code.

====================  =================================================================
``interpreter``       an ONNX graph as a differentiable PyTorch module
``operators/``        its operators, one file per family
``weights``           quantized weights as trainable floats, and the way back into the graph
====================  =================================================================

Only ``__init__`` and ``options`` can be imported without torch.
"""
