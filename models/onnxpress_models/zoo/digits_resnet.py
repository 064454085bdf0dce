"""Residual network on digits, of basic blocks (He et al. 2015, arXiv:1512.03385).

412,010 parameters and 55 million multiply-accumulates an image: few wide layers, so that int8 arithmetic outweighs what
quantization adds to the graph. 99.43 % of the test images; trained for 10 epochs (70 s on one core).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

INPUTS = {"input": "float32:batchx1x32x32"}
OUTPUTS = ("logits",)
DATASET = "digits"
ACCURACY = 99.43
EPOCHS = 10
LEARNING_RATE = 3e-3
WIDTHS = (32, 64, 160)


def build() -> torch.nn.Module:
    """Return the network with random weights: [N, 1, 32, 32] -> logits [N, 10]."""
    import torch
    from torch import nn

    def convolution(channels: int, width: int, kernel: int, stride: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2, bias=False), nn.BatchNorm2d(width)
        )

    class Block(nn.Module):
        """Two convolutions of 3x3, added to a shortcut (a convolution of 1x1 where the shape changes)."""

        def __init__(self, channels: int, width: int, stride: int) -> None:
            super().__init__()
            self.first = convolution(channels, width, 3, stride)
            self.second = convolution(width, width, 3, 1)
            same = channels == width and stride == 1
            self.shortcut = nn.Identity() if same else convolution(channels, width, 1, stride)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.second(torch.relu(self.first(x))) + self.shortcut(x))

    first, second, third = WIDTHS
    return nn.Sequential(
        OrderedDict(
            stem=convolution(1, first, 3, 1),
            relu=nn.ReLU(),
            stage1=Block(first, first, 1),
            stage2=Block(first, second, 2),
            stage3=Block(second, third, 2),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            head=nn.Linear(third, 10),
        )
    )
