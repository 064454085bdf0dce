"""Train a reference model again: ``python -m onnxpress_models.train NAME [--seed 0] [-o FILE]``.

Adam with a one-cycle learning rate (Smith and Topin 2017, arXiv:1708.07120), cross entropy on mini-batches, and a
little L2 regularization, which leaves filters that pruning can take (Mehta et al. 2019, arXiv:1811.12495). Each model
says how many epochs and how fast. One thread and one seed: twice on one machine gives the same weights, bit by bit.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import onnxpress_models

if TYPE_CHECKING:
    import torch

Array = np.ndarray[Any, np.dtype[Any]]

BATCH = 32
WEIGHT_DECAY = 1e-4


def fit(name: str, data: dict[str, Array], *, seed: int, epochs: int) -> torch.nn.Module:
    """Train a model from random weights.

    Args:
        name: The model.
        data: Its inputs by name, and labels ``y``.
        seed: Sets the first weights and the order of the samples; the caller's random state is left alone.
        epochs: How often each sample is seen.

    Returns:
        The trained network, ready for inference.

    """
    import torch

    module = onnxpress_models.model(name)
    inputs = [torch.from_numpy(data[key]) for key in module.INPUTS]
    labels = torch.from_numpy(data["y"])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network: torch.nn.Module = module.build().train()
        optimizer = torch.optim.Adam(network.parameters(), weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, module.LEARNING_RATE, epochs=epochs, steps_per_epoch=-(-len(labels) // BATCH)
        )
        for _ in range(epochs):
            order = torch.randperm(len(labels))
            for start in range(0, len(labels), BATCH):
                batch = order[start : start + BATCH]
                optimizer.zero_grad()
                logits = network(*(value[batch] for value in inputs))
                loss = torch.nn.functional.cross_entropy(logits, labels[batch])
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
    return network.eval()


def accuracy(name: str, network: torch.nn.Module, data: dict[str, Array]) -> float:
    """Return how many of 100 samples get the right class (top-1)."""
    import torch

    inputs = [torch.from_numpy(data[key]) for key in onnxpress_models.model(name).INPUTS]
    with torch.inference_mode():
        answers = network(*inputs).argmax(dim=1).numpy()
    return 100 * float((answers == data["y"]).mean())


def main() -> None:
    """Train, print the accuracy on the test split, and write the weights."""
    import torch
    from safetensors.torch import save_file

    parser = argparse.ArgumentParser(prog="python -m onnxpress_models.train", description="Train a reference model.")
    parser.add_argument("name", choices=onnxpress_models.names())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, help="weights (default: those of the package are replaced)")
    arguments = parser.parse_args()
    output = arguments.output or onnxpress_models.weights_file(arguments.name)

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    module = onnxpress_models.model(arguments.name)
    train, test = (onnxpress_models.dataset_function(module.DATASET, split)() for split in ("train", "test"))
    network = fit(arguments.name, train, seed=arguments.seed, epochs=module.EPOCHS)
    scratch = output.with_name(f".{output.name}.tmp")
    save_file(network.state_dict(), scratch)
    scratch.replace(output)
    print(f"{arguments.name}: top-1 {accuracy(arguments.name, network, test):.2f} % on the test split, {output}")


if __name__ == "__main__":
    main()
