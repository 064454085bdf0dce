"""Transformer encoder on the names of Unicode characters, built like BERT (Devlin et al. 2018, arXiv:1810.04805).

161,482 parameters, 88.00 % of the test names; trained for 12 epochs (100 s on one core).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

INPUTS = {"input_ids": "int64:batchx48", "attention_mask": "int64:batchx48"}
OUTPUTS = ("logits",)
DATASET = "unicode_names"
ACCURACY = 88.0
EPOCHS = 12
LEARNING_RATE = 1.5e-3
WIDTH, HEADS, LAYERS, FEED_FORWARD = 96, 4, 2, 192
DROPOUT = 0.1
MASKED = -10000.0
"""Added to the scores of padding, as BERT does: a constant that must not set a quantization range."""


def build() -> torch.nn.Module:
    """Return the network with random weights: ids and mask [N, 48] -> logits [N, 10], read off the first token."""
    import torch
    from torch import nn

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.value, self.output = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

        def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            # Plain matrix products: the graph of a classic BERT export, not a fused attention operator.
            query, key, value = (
                projection(x).unflatten(-1, (HEADS, -1)).transpose(1, 2)
                for projection in (self.query, self.key, self.value)
            )
            scores = query @ key.transpose(2, 3) / (WIDTH // HEADS) ** 0.5 + mask
            mixed: torch.Tensor = self.output((scores.softmax(-1) @ value).transpose(1, 2).flatten(2))
            return mixed

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = Attention()
            self.attention_norm = nn.LayerNorm(WIDTH)
            self.feed_forward = nn.Sequential(nn.Linear(WIDTH, FEED_FORWARD), nn.GELU(), nn.Linear(FEED_FORWARD, WIDTH))
            self.feed_forward_norm = nn.LayerNorm(WIDTH)
            self.dropout = nn.Dropout(DROPOUT)

        def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            x = self.attention_norm(x + self.dropout(self.attention(x, mask)))
            normed: torch.Tensor = self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))
            return normed

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token = nn.Embedding(64, WIDTH)
            self.position = nn.Parameter(torch.empty(48, WIDTH))
            nn.init.normal_(self.token.weight, std=0.02)
            nn.init.normal_(self.position, std=0.02)
            self.norm = nn.LayerNorm(WIDTH)
            self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
            self.dropout = nn.Dropout(DROPOUT)
            self.head = nn.Linear(WIDTH, 10)

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            mask = (1 - attention_mask[:, None, None, :].to(torch.float32)) * MASKED
            x = self.dropout(self.norm(self.token(input_ids) + self.position))
            for layer in self.layers:
                x = layer(x, mask)
            logits: torch.Tensor = self.head(x[:, 0])
            return logits

    return Encoder()
