"""Published checkpoints in and out: `load_model`, `save_model` and the errors that users meet on the way.

A checkpoint is a folder with config.json, one or several safetensors files and a tokenizer. The three towers may be
stored inside it, in folders that the config names, in folders of the same name beside config.json, or on the hub;
`emostream.parts` says in which order they are looked for.
"""

import json
import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import BertTokenizer, GenerationConfig, Qwen2Tokenizer, WhisperFeatureExtractor
from transformers.initialization import no_init_weights
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from emostream.configuration import EmostreamConfig
from emostream.errors import CheckpointError, ConfigError
from emostream.modeling import EmostreamForCausalLM
from emostream.parts import PARTS, Part, find_folder, hub_folder
from emostream.processor import EmostreamProcessor

logger = logging.getLogger(__name__)

#: The trained model that ships in the package, once `make tiny` has made it.
TINY_FOLDER = Path(__file__).with_name("assets") / "tiny"

#: File types that a checkpoint may need; weights in any other format are never fetched.
HUB_PATTERNS = ["*.safetensors", "*.json", "*.txt", "*.model"]

#: Largest safetensors file written; a 7B checkpoint becomes several with an index.
MAX_SHARD_BYTES = 5_000_000_000


def load_model(
    path_or_id: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    towers: Mapping[str, str | Path] | None = None,
) -> tuple[EmostreamForCausalLM, EmostreamProcessor]:
    """Load a checkpoint in the published HumanOmni / R1-Omni layout.

    Args:
        path_or_id: A folder, a hub id, or `tiny` for the model that ships in the package.
        device: Where the model goes.
        dtype: float32, bfloat16 or float16, of every parameter.
        towers: Folders that override where `vision`, `audio` and `gate` parts are looked for.

    Returns:
        The model in eval mode and its processor.

    Raises:
        CheckpointError: Something is missing, truncated, of another shape or not safetensors; the message names the
            file, what was wanted and the remedy.
        ConfigError: config.json has a value of another model family.
    """
    if str(path_or_id) == "tiny" and not Path(path_or_id).is_dir():
        if not TINY_FOLDER.is_dir():
            from emostream.presets import from_preset

            logger.warning(
                "tiny: this build ships no trained weights; running the preset with random ones"
            )
            model, processor = from_preset("tiny")
            return model.to(device=device, dtype=dtype).eval(), processor
        path_or_id = TINY_FOLDER
    overrides = _check_overrides(towers)
    root = checkpoint_folder(path_or_id)
    files = _weight_files(root)
    index = _index(files)
    inside = {part.name for part in PARTS if any(key.startswith(part.prefix) for key in index)}
    config = _load_config(root, inside, overrides)
    model = _skeleton(config, dtype)
    wanted = model.state_dict()
    if config.tie_word_embeddings:
        wanted.pop("lm_head.weight")

    sources: list[tuple[Path, dict[str, str]]] = [
        (file, {key: key for key, owner in index.items() if owner == file}) for file in files
    ]
    for part in PARTS:
        if part.name not in inside:
            sources += _outside_sources(part, config, root, overrides.get(part.name))
    state: dict[str, Tensor] = {}
    unused: dict[str, Tensor] = {}
    for file, names in sources:
        for name, tensor in _read(file, names, wanted):
            if name in wanted:
                state[name] = tensor.to(dtype)
            elif name != "lm_head.weight":
                unused[name] = tensor
    _refuse_missing(sorted(wanted.keys() - state.keys()), root)
    # `assign` keeps the tensors just read instead of copying them into a second allocation.
    model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    model.unused_tensors = unused
    config.dtype = dtype
    config.name_or_path = str(path_or_id)
    if (root / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(root)
    processor = _build_processor(config, root, overrides)
    return model.to(device).eval(), processor


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
    path = Path(path)
    if path.exists() and any(path.iterdir()) and not (path / "config.json").is_file():
        raise CheckpointError(
            f"save_model: {path} exists and holds something that is no checkpoint. Choose another folder."
        )
    config = model.config
    config.dtype = model.dtype
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    except OSError as error:
        raise CheckpointError(f"save_model: cannot write beside {path}: {error}") from error
    try:
        _write_json(staging / "config.json", config.to_published_dict())
        for part in PARTS:
            folder = staging / Path(getattr(config, part.config_key)).name
            folder.mkdir()
            _write_json(folder / "config.json", getattr(config, part.sub_config).to_dict())
        model.generation_config.save_pretrained(staging)
        processor.save_pretrained(staging)
        _write_weights(staging, _tensors_to_save(model))
        staging.chmod(0o755)
        if path.exists():
            shutil.rmtree(path)
        staging.rename(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"save_model: cannot write {path}: {error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return path


def load_processor(path_or_id: str | Path) -> EmostreamProcessor:
    """The processor of a checkpoint, without its weights."""
    root = checkpoint_folder(path_or_id)
    inside = {part.name for part in PARTS}
    return _build_processor(_load_config(root, inside, {}), root, {})


def checkpoint_folder(path_or_id: str | Path) -> Path:
    """The local folder of a checkpoint; a hub id is fetched (safetensors, JSON and tokenizer files only).

    Raises:
        CheckpointError: No such folder, or the hub does not give it.
    """
    folder = Path(path_or_id).expanduser()
    if folder.is_dir():
        return folder
    text = str(path_or_id)
    if text.count("/") != 1 or text.startswith((".", "/", "~")):
        raise CheckpointError(
            f"load_model: {text} is neither a folder nor a hub id (owner/name). Name the folder that holds config.json."
        )
    try:
        return Path(snapshot_download(text, allow_patterns=HUB_PATTERNS))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(
            f"load_model: {text} is no folder here and the hub does not give it ({type(error).__name__}). Check the id "
            "and the network, or download it once elsewhere and name its folder."
        ) from error


def _check_overrides(towers: Mapping[str, str | Path] | None) -> dict[str, Path]:
    overrides = {name: Path(folder) for name, folder in (towers or {}).items()}
    for name, folder in overrides.items():
        if name not in {part.name for part in PARTS}:
            raise ConfigError(
                f"load_model: towers names {name!r}; the parts are vision, audio and gate."
            )
        if not (folder / "config.json").is_file():
            raise CheckpointError(
                f"load_model: the {name} tower's folder {folder} has no config.json."
            )
    return overrides


def _weight_files(root: Path) -> list[Path]:
    index = root / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(_read_json(index)["weight_map"].values()))
        files = [root / name for name in names]
    else:
        files = [root / "model.safetensors"]
    for file in files:
        if file.is_file():
            continue
        other = sorted(p.name for p in root.iterdir() if p.suffix in {".bin", ".pt", ".pth"})
        if other:
            raise CheckpointError(
                f"load_model: {root} holds {other[0]} but no {file.name}. Only safetensors are loaded; convert it with "
                "safetensors' convert tool."
            )
        raise CheckpointError(
            f"load_model: {file} is missing. A checkpoint is a folder with config.json and model.safetensors."
        )
    return files


def _index(files: list[Path]) -> dict[str, Path]:
    """Tensor name -> file that holds it."""
    return {key: file for file in files for key in _keys(file)}


def _keys(file: Path) -> list[str]:
    try:
        with safe_open(file, "pt") as handle:
            return list(handle.keys())
    except (SafetensorError, OSError) as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"load_model: {file} ({file.stat().st_size} bytes) is truncated or no safetensors file ({error}). "
        "Download or copy it again."
    )


def _load_config(root: Path, inside: set[str], overrides: Mapping[str, Path]) -> EmostreamConfig:
    file = root / "config.json"
    if not file.is_file():
        raise CheckpointError(
            f"load_model: {file} is missing. Name the folder that holds config.json."
        )
    published = _read_json(file)
    if published.get("model_type") != EmostreamConfig.model_type:
        raise ConfigError(
            f"{file}: model_type is {published.get('model_type')!r}, wanted {EmostreamConfig.model_type!r}. "
            "This is no HumanOmni / R1-Omni checkpoint."
        )
    subs: dict[str, Any] = {}
    for part in PARTS:
        name = published.get(part.config_key, getattr(EmostreamConfig, part.config_key))
        folder = find_folder(part, name, root, overrides.get(part.name))
        if folder is not None:
            subs[part.sub_config] = part.select_config(_read_json(folder / "config.json"))
        elif part.name in inside and (builtin := part.builtin(name)) is not None:
            subs[part.sub_config] = builtin
        else:
            folder = hub_folder(part, name, root)
            subs[part.sub_config] = part.select_config(_read_json(folder / "config.json"))
    return EmostreamConfig(**{**published, **subs}, published=published)


def _skeleton(config: EmostreamConfig, dtype: torch.dtype) -> EmostreamForCausalLM:
    """The model with its buffers computed and its parameters allocated but not initialised."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with no_init_weights():
            return EmostreamForCausalLM(config)
    finally:
        torch.set_default_dtype(default)


def _outside_sources(
    part: Part, config: EmostreamConfig, root: Path, override: Path | None
) -> Iterator[tuple[Path, dict[str, str]]]:
    """(file, stored name -> our name) of a tower that the checkpoint does not store."""
    name = getattr(config, part.config_key)
    folder = find_folder(part, name, root, override)
    if folder is None or not any(folder.glob("*.safetensors")):
        folder = hub_folder(part, name, root)
    for file in _weight_files(folder):
        yield file, {key: ours for key in _keys(file) if (ours := part.rename(key)) is not None}


def _read(
    file: Path, names: Mapping[str, str], wanted: Mapping[str, Tensor]
) -> Iterator[tuple[str, Tensor]]:
    """Tensors of a file under our names, their shapes checked before any data is read."""
    try:
        with safe_open(file, "pt") as handle:
            for key, name in names.items():
                shape = tuple(handle.get_slice(key).get_shape())
                if name in wanted and shape != tuple(wanted[name].shape):
                    raise CheckpointError(
                        f"load_model: {file}: {key} is {shape}, config.json asks for {tuple(wanted[name].shape)}. "
                        "The weights and the configuration belong to different models."
                    )
                yield name, handle.get_tensor(key)
    except (SafetensorError, OSError) as error:
        raise _unreadable(file, error) from error


def _refuse_missing(missing: list[str], root: Path) -> None:
    if missing:
        raise CheckpointError(
            f"load_model: {root} lacks {len(missing)} tensors that config.json asks for, the first {missing[0]}. "
            "The download is incomplete or the configuration belongs to another model."
        )


def _build_processor(
    config: EmostreamConfig, root: Path, overrides: Mapping[str, Path]
) -> EmostreamProcessor:
    folders = {
        part.name: find_folder(
            part, getattr(config, part.config_key), root, overrides.get(part.name)
        )
        for part in PARTS
    }
    size = config.vision_config.image_size
    vision, audio = folders["vision"], folders["audio"]
    image_processor = (
        SiglipImageProcessorPil.from_pretrained(vision)
        if vision is not None and (vision / "preprocessor_config.json").is_file()
        else SiglipImageProcessorPil(size={"height": size, "width": size})
    )
    feature_extractor = (
        WhisperFeatureExtractor.from_pretrained(audio)
        if audio is not None and (audio / "preprocessor_config.json").is_file()
        else WhisperFeatureExtractor(feature_size=config.audio_config.num_mel_bins)
    )
    gate = folders["gate"]
    if gate is None or not any((gate / name).is_file() for name in ("vocab.txt", "tokenizer.json")):
        # BERT's vocabulary is in no published checkpoint, so it is the one part that always comes from elsewhere.
        gate = hub_folder(PARTS[-1], config.gate_tower, root)
    return EmostreamProcessor(
        image_processor,
        feature_extractor,
        _tokenizer(Qwen2Tokenizer, root, "left"),
        _tokenizer(BertTokenizer, gate, "right"),
        config=config,
    )


def _tokenizer(cls: Any, folder: Path, padding_side: str) -> Any:
    try:
        return cls.from_pretrained(folder, padding_side=padding_side)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"load_model: {folder} has no tokenizer that can be read ({error}). Copy tokenizer.json, or vocab.json and "
            "merges.txt, from the model's repository."
        ) from error


def _tensors_to_save(model: EmostreamForCausalLM) -> dict[str, Tensor]:
    tensors = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        tensors.pop("lm_head.weight")
    return {
        name: tensor.cpu().contiguous()
        for name, tensor in sorted({**model.unused_tensors, **tensors}.items())
    }


def _write_weights(folder: Path, tensors: dict[str, Tensor]) -> None:
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if size + tensor.nbytes > MAX_SHARD_BYTES and shards[-1]:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    if len(shards) == 1:
        save_file(shards[0], folder / "model.safetensors", metadata={"format": "pt"})
        return
    weight_map = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(shard, file))
    total = sum(tensor.nbytes for tensor in tensors.values())
    _write_json(
        folder / "model.safetensors.index.json",
        {"metadata": {"total_size": total}, "weight_map": weight_map},
    )


def _read_json(file: Path) -> dict[str, Any]:
    try:
        out = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"load_model: {file} is no readable JSON ({error}).") from error
    if not isinstance(out, dict):
        raise CheckpointError(f"load_model: {file} holds a {type(out).__name__}, wanted an object.")
    return out


def _write_json(file: Path, value: dict[str, Any]) -> None:
    file.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
