import contextlib
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from onnxpress.errors import ModelError, UsageError
from onnxpress.export.weights import load_weights

torch = pytest.importorskip("torch")


def net(width: int = 3, *, tied: bool = False) -> "torch.nn.Module":
    module = torch.nn.Sequential(torch.nn.Linear(2, width), torch.nn.Linear(width, 2))
    if tied:
        module.append(module[0])
    return module


def save_safetensors(state: dict[str, "torch.Tensor"], path: Path) -> None:
    from safetensors.torch import save_file

    save_file(state, path)


@pytest.mark.parametrize(("save", "name"), [(save_safetensors, "w.safetensors"), (torch.save, "w.pt")])
def test_weights_are_loaded(tmp_path: Path, save: Callable[..., None], name: str) -> None:
    source, target = net(), net()
    save(source.state_dict(), tmp_path / name)
    load_weights(target, tmp_path / name)
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), target.parameters(), strict=True))


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_weights_in_a_checkpoint(tmp_path: Path, key: str) -> None:
    source, target = net(), net()
    torch.save({key: source.state_dict(), "epoch": 3}, tmp_path / "c.pt")
    load_weights(target, tmp_path / "c.pt")
    assert torch.equal(source[0].weight, target[0].weight)


def test_tied_weights_are_stored_once(tmp_path: Path) -> None:
    source, target = net(tied=True), net(tied=True)
    state = {name: tensor for name, tensor in source.state_dict().items() if not name.startswith("2.")}
    save_safetensors(state, tmp_path / "w.safetensors")
    load_weights(target, tmp_path / "w.safetensors")
    assert torch.equal(target[2].weight, source[0].weight)


def test_weights_of_another_model(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    save_safetensors(net(5).state_dict(), file)
    with pytest.raises(
        ModelError, match=r"has other shapes: 0\.weight is \[5, 2\], the model has \[3, 2\], .* belong to another"
    ):
        load_weights(net(3), file)
    with pytest.raises(ModelError, match=r"lacks 2\.weight, 2\.bias"):
        load_weights(torch.nn.Sequential(*net(5), torch.nn.Linear(1, 1)), file)
    with pytest.raises(ModelError, match=r"has, but the model does not, 0\.bias, 0\.weight, 1\.bias and 1 more"):
        load_weights(torch.nn.ReLU(), file)


def test_nothing_is_loaded_when_something_does_not_fit(tmp_path: Path) -> None:
    target = net(3)
    before = target[1].bias.clone()
    save_safetensors(net(5).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(ModelError):
        load_weights(target, tmp_path / "w.safetensors")
    assert torch.equal(target[1].bias, before)


def test_a_pickle_is_refused_with_advice(tmp_path: Path) -> None:
    torch.save(net(), tmp_path / "whole.pt")
    with pytest.raises(ModelError, match=r"needs pickle, which can run any code.*safetensors\.torch\.save_file"):
        load_weights(net(), tmp_path / "whole.pt")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_files_that_hold_no_weights(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="no such file"):
        load_weights(net(), tmp_path / name)
    (tmp_path / name).write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(ModelError, match=r"truncated|needs pickle"):
        load_weights(net(), tmp_path / name)


def test_something_else_than_weights(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ModelError, match="holds no dict of tensors"):
        load_weights(net(), tmp_path / "list.pt")


class Canary:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_is_unpickled(tmp_path: Path, *, zipped: bool) -> None:
    torch.save({"0.weight": Canary(tmp_path / "ran")}, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError, match="needs pickle"):
        load_weights(net(), tmp_path / "w.pt")
    (tmp_path / "w.safetensors").write_bytes((tmp_path / "w.pt").read_bytes())
    with pytest.raises(ModelError, match="no safetensors file"):
        load_weights(net(), tmp_path / "w.safetensors")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Canary(tmp_path / "ran")))
    with pytest.raises(ModelError, match=r"needs pickle|not what torch\.save writes"):
        load_weights(net(), tmp_path / "plain.pt")
    assert not (tmp_path / "ran").exists()


def test_compressed_checkpoints_are_refused(tmp_path: Path) -> None:
    torch.save(net().state_dict(), tmp_path / "w.pt")
    with zipfile.ZipFile(tmp_path / "w.pt") as given, zipfile.ZipFile(tmp_path / "z.pt", "w", 8) as made:
        for name in given.namelist():
            made.writestr(name, given.read(name))
    with pytest.raises(ModelError, match="compressed members"):
        load_weights(net(), tmp_path / "z.pt")


@pytest.mark.parametrize(
    "tensor", [torch.zeros(3, 2).to_sparse(), torch.empty(3, 2, device="meta")], ids=["sparse", "meta"]
)
def test_tensors_without_plain_values(tmp_path: Path, tensor: "torch.Tensor") -> None:
    torch.save({**net().state_dict(), "0.weight": tensor}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"0\.weight is no plain tensor"):
        load_weights(net(), tmp_path / "w.pt")


@pytest.mark.parametrize(("save", "name"), [(save_safetensors, "w.safetensors"), (torch.save, "w.pt")])
def test_every_flipped_byte_and_truncation_is_one_error_or_none(
    tmp_path: Path, save: Callable[..., None], name: str
) -> None:
    save(net().state_dict(), tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    for position in range(0, len(whole), 23):
        for damaged in (whole[:position], whole[:position] + bytes([whole[position] ^ 0xA5]) + whole[position + 1 :]):
            (tmp_path / name).write_bytes(damaged)
            with contextlib.suppress(ModelError):
                load_weights(net(), tmp_path / name)
