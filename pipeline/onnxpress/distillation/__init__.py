"""Distillation: a small model learns to answer like a large one, from unlabelled data and without training code.

====================  =================================================================
``interpreter``       an ONNX graph as a differentiable PyTorch module
``operators/``        its operators, one file per family
``weights``           quantized weights as trainable floats, and the way back into the graph
``objective``         the loss: outputs and inner tensors of student and teacher
``samples``           which samples make up each update
``augment``           changes of the inputs
``processes``         one process, or the several that torchrun starts
``loop``              the training loop, with checkpoints
``distill``           the step: graph in, graph out
====================  =================================================================

Only ``__init__`` and ``options`` can be imported without torch.
"""
