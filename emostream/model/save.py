"""Writing checkpoints: `save_model`, which leaves a whole folder or the one that was there."""

import glob
import re
import shutil
import uuid
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor

from emostream.checkpoint.files import write_weights
from emostream.checkpoint.resolve import read_config
from emostream.errors import CheckpointError, ConfigError
from emostream.model.modeling import EmostreamForCausalLM
from emostream.model.processor import EmostreamProcessor


def save_model(
    model: EmostreamForCausalLM, processor: EmostreamProcessor, path: str | Path
) -> Path:
    """Write a checkpoint that `load_model` and the upstream code open.

    Everything is written to a temporary sibling first, so an interrupted save leaves `path` as it was.

    Args:
        model: Parameters are written in the dtype that they have; unused tensors and unknown config keys as they came.
        processor: Its tokenizer goes beside config.json, its front ends into the towers' folders.
        path: Folder; replaced if it is a checkpoint already.

    Raises:
        CheckpointError: `path` exists and is no checkpoint folder, or it cannot be written.
    """
    path = Path(path).expanduser().resolve()
    if not _may_write(path):
        raise CheckpointError(
            f"save_model: {path} exists and is no checkpoint of this family. Choose another folder."
        )
    config = model.config
    config.dtype = model.dtype
    staging = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        staging.mkdir()
        config.save_pretrained(staging)
        # Not `save_pretrained`, which refuses combinations that published files do have.
        model.generation_config.to_json_file(staging / "generation_config.json")
        processor.save_pretrained(staging)
        write_weights(staging, _tensors_to_save(model))
        put_in_place(staging, path)
        _remove_leftovers(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"save_model: cannot write {path}: {error}. Nothing was changed; free the space or choose another folder."
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return path


def _tensors_to_save(model: EmostreamForCausalLM) -> dict[str, Tensor]:
    tensors = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        tensors.pop("lm_head.weight")
    return {
        name: tensor.cpu().contiguous()
        for name, tensor in sorted({**model.unused_tensors, **tensors}.items())
    }


def _may_write(path: Path) -> bool:
    """Whether nothing is lost if `path` is replaced: it is new, empty, or a checkpoint of this family."""
    if not path.is_dir():
        return not path.exists()
    if not any(path.iterdir()):
        return True
    try:
        return bool(read_config(path))
    except (CheckpointError, ConfigError):
        return False


def _remove_leftovers(path: Path) -> None:
    """Delete what saves of `path` left behind that were killed; not before a whole checkpoint stands there."""
    for folder in path.parent.glob(f".{glob.escape(path.name)}-*"):
        if re.fullmatch("[0-9a-f]{32}(-old)?", folder.name.removeprefix(f".{path.name}-")):
            shutil.rmtree(folder, ignore_errors=True)


def put_in_place(staging: Path, path: Path) -> None:
    """Rename a finished folder to `path`; what was there is removed last, and is back if the renaming fails.

    Args:
        staging: Beside `path`.
        path: A folder, or nothing yet.

    Raises:
        OSError: It cannot be renamed.
    """
    old = staging.with_name(f"{staging.name}-old")
    shutil.rmtree(old, ignore_errors=True)  # of a process that was killed
    if path.exists():
        path.rename(old)
    try:
        staging.rename(path)
    except OSError:
        if old.exists():
            old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)
