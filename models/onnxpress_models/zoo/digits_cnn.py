"""Plain convolutional network on digits: convolution and pooling, twice, then dense.

103,642 parameters, 97.71 % of the test images; trained for 12 epochs (10 s on one core).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

INPUTS = {"input": "float32:batchx1x32x32"}
OUTPUTS = ("logits",)
DATASET = "digits"
ACCURACY = 97.71
EPOCHS = 12
LEARNING_RATE = 3e-3


def build() -> torch.nn.Module:
    """Return the network with random weights: [N, 1, 32, 32] -> logits [N, 10]."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 8 * 8, 48),
        nn.ReLU(),
        nn.Linear(48, 10),
    )
