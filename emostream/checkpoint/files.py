"""The files of a checkpoint folder: safetensors and JSON, read and written with errors that name the file."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from emostream.errors import CheckpointError

#: Largest safetensors file written; a 7B checkpoint becomes several with an index.
MAX_SHARD_BYTES = 5_000_000_000

#: How a file starts that Git LFS has not fetched.
LFS_POINTER = b"version https://git-lfs.github.com/spec/"

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def weight_files(root: Path) -> list[Path]:
    """The safetensors files of a checkpoint or tower.

    Raises:
        CheckpointError: There are none, or the index names one that is missing.
    """
    index = root / INDEX
    if (root / WEIGHTS).is_file() or not index.is_file():
        return [_require(root / WEIGHTS, "A model folder holds config.json and model.safetensors.")]
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(
            f"load_model: {index} has no weight_map that names its files. Download or copy it again."
        )
    return [
        _require(root / name, f"{index.name} names it: download or copy it again.")
        for name in sorted({str(name) for name in weight_map.values()})
    ]


def _require(file: Path, remedy: str) -> Path:
    if file.is_file():
        return file
    other = sorted(p.name for p in file.parent.iterdir() if p.suffix in {".bin", ".pt", ".pth"})
    if other:
        raise CheckpointError(
            f"load_model: {file.parent} holds {other[0]} but no {file.name}. Only safetensors are loaded; convert it "
            "with safetensors' convert tool."
        )
    raise CheckpointError(f"load_model: {file} is missing. {remedy}")


def tensor_names(file: Path) -> list[str]:
    """Names of the tensors in a safetensors file."""
    try:
        with safe_open(file, "pt") as handle:
            return list(handle.keys())
    except (SafetensorError, OSError) as error:
        raise _unreadable(file, error) from error


def read_tensors(
    file: Path, names: Mapping[str, str], shapes: Mapping[str, torch.Size]
) -> Iterator[tuple[str, Tensor]]:
    """Tensors of a file under our names, the shape of each checked before its data is read.

    Args:
        file: A safetensors file.
        names: Stored name -> our name, for the tensors to read.
        shapes: Our name -> shape that the configuration asks for; names without one are read as they are.

    Yields:
        Our name and a tensor that may be a view of the file: copy what is kept.

    Raises:
        CheckpointError: A shape differs, or the file is truncated.
    """
    try:
        with safe_open(file, "pt") as handle:
            for key, name in names.items():
                shape = tuple(handle.get_slice(key).get_shape())
                if name in shapes and shape != tuple(shapes[name]):
                    raise CheckpointError(
                        f"load_model: {file}: {key} is {shape}, config.json asks for {tuple(shapes[name])}. "
                        "The weights and the configuration belong to different models."
                    )
                yield name, handle.get_tensor(key)
    except (SafetensorError, OSError) as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> CheckpointError:
    refuse_pointer(file)
    return CheckpointError(
        f"load_model: {file} ({file.stat().st_size} bytes) is truncated or no safetensors file ({error}). "
        "Download or copy it again."
    )


def refuse_pointer(file: Path) -> None:
    """Raise if a file is what Git leaves in place of one that Git LFS has not fetched.

    Raises:
        CheckpointError: It is; an absent or unreadable file is none.
    """
    try:
        with file.open("rb") as stream:
            start = stream.read(len(LFS_POINTER))
    except OSError:
        return
    if start == LFS_POINTER:
        raise CheckpointError(
            f"load_model: {file} is a Git LFS pointer, not the file itself. Run `git lfs pull` in {file.parent}."
        )


def write_weights(folder: Path, tensors: dict[str, Tensor]) -> None:
    """model.safetensors, or shards of at most `MAX_SHARD_BYTES` and their index."""
    split = split_torch_state_dict_into_shards(tensors, max_shard_size=MAX_SHARD_BYTES)
    for file, names in split.filename_to_tensors.items():
        _save({name: tensors[name] for name in names}, folder / file)
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        write_json(folder / INDEX, index)


def _save(tensors: dict[str, Tensor], file: Path) -> None:
    # A new file has the mode that the user's umask gives; safetensors leaves one that its owner alone may read.
    file.touch()
    mode = file.stat().st_mode
    save_file(tensors, file, metadata={"format": "pt"})
    file.chmod(mode)


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        CheckpointError: No such file, no JSON, or no object.
    """
    try:
        out = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"load_model: {file} is missing. Name the folder that holds it."
        ) from error
    except (OSError, ValueError) as error:
        refuse_pointer(file)
        raise CheckpointError(
            f"load_model: {file} is no readable JSON ({error}). Download or copy it again."
        ) from error
    if not isinstance(out, dict):
        raise CheckpointError(
            f"load_model: {file} holds a {type(out).__name__}, wanted an object. Download or copy it again."
        )
    return out


def write_json(file: Path, value: Mapping[str, Any]) -> None:
    """`value` as transformers writes its JSON files: sorted, two spaces, a final newline."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8")
