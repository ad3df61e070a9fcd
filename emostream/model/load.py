"""Published checkpoints: `load_model`, what lies in their folders, and the errors that users meet on the way.

A checkpoint is a folder with config.json, one or several safetensors files and a tokenizer. The three towers may be
stored inside it, in folders that the config names, in folders of the same name beside config.json, or on the hub;
`emostream.checkpoint.parts` says in which order they are looked for.
"""

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import BertTokenizer, GenerationConfig, Qwen2Tokenizer, WhisperFeatureExtractor
from transformers.initialization import no_init_weights
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from emostream.checkpoint.files import read_json, read_tensors, tensor_names, weight_files
from emostream.checkpoint.parts import HUB_ERRORS, PARTS, Part, fetch, find_folder, hub_folder
from emostream.checkpoint.tokenizers import read_tokenizer
from emostream.errors import CheckpointError, ConfigError
from emostream.model.configuration import EmostreamConfig
from emostream.model.modeling import EmostreamForCausalLM
from emostream.model.processor import EmostreamProcessor

#: The trained model that ships in the package; `make tiny` makes it.
TINY_FOLDER = Path(__file__).parents[1] / "assets" / "tiny"

#: What is fetched of a BERT of which only the vocabulary is wanted.
VOCABULARY_PATTERNS = ("tokenizer*.json", "vocab.txt", "special_tokens_map.json")


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
    overrides = _check_overrides(towers)
    root = checkpoint_folder(path_or_id)
    published = read_config(root)
    stored = {file: tensor_names(file) for file in weight_files(root)}
    inside = _parts_inside(itertools.chain.from_iterable(stored.values()))
    config = EmostreamConfig.from_dict(
        published, inside=inside, towers=overrides, name_or_path=str(root)
    )
    model = _skeleton(config, dtype)
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        wanted.pop("lm_head.weight")

    sources = [(file, {name: name for name in names}) for file, names in stored.items()]
    homes = {}
    for part in PARTS:
        if part.name not in inside:
            homes[part.prefix] = _weights_folder(part, config, root, overrides.get(part.name))
            for file in weight_files(homes[part.prefix]):
                renamed = {name: part.rename(name) for name in tensor_names(file)}
                sources.append((file, {name: ours for name, ours in renamed.items() if ours}))
    state: dict[str, Tensor] = {}
    unused: dict[str, Tensor] = {}
    for file, names in sources:
        for name, tensor in read_tensors(file, names, wanted):
            # Copies: what was read is a view of the file, which somebody may write again while the model lives.
            if name in wanted:
                state[name] = tensor.to(device=device, dtype=dtype, copy=True)
            elif name != "lm_head.weight":
                unused[name] = tensor.clone()
    _refuse_missing(sorted(wanted.keys() - state.keys()), root, homes)
    # `assign` keeps the tensors just read instead of copying them into a second allocation.
    model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    model.unused_tensors = unused
    config.dtype = dtype
    config.name_or_path = str(path_or_id)
    if (root / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_dict(
            read_json(root / "generation_config.json")
        )
    processor = _build_processor(config, root, overrides)
    return model.to(device).eval(), processor


def load_processor(path_or_id: str | Path) -> EmostreamProcessor:
    """The processor of a checkpoint, without its weights."""
    root = checkpoint_folder(path_or_id)
    config = EmostreamConfig.from_dict(read_config(root), name_or_path=str(root))
    return _build_processor(config, root, {})


def checkpoint_files(path_or_id: str | Path) -> list[Path]:
    """The files that decide what a checkpoint computes: configurations and weights, its own and its towers'.

    Raises:
        CheckpointError: One of them is missing.
        ConfigError: config.json has a value of another model family.
    """
    root = checkpoint_folder(path_or_id)
    published = read_config(root)
    weights = weight_files(root)
    inside = _parts_inside(itertools.chain.from_iterable(map(tensor_names, weights)))
    config = EmostreamConfig.from_dict(published, inside=inside, towers={}, name_or_path=str(root))
    files = [root / "config.json", *weights]
    for part in PARTS:
        folder = find_folder(part, getattr(config, part.config_key), root, None)
        if folder is not None:
            files.append(folder / "config.json")
        if part.name not in inside:
            files += weight_files(_weights_folder(part, config, root, None))
    return files


def checkpoint_folder(path_or_id: str | Path) -> Path:
    """The local folder of a checkpoint; a hub id is fetched (safetensors, JSON and tokenizer files only).

    Raises:
        CheckpointError: No such folder, the hub does not give it, or the installation lacks `tiny`.
    """
    folder = Path(path_or_id).expanduser()
    if folder.is_dir():
        return folder
    text = str(path_or_id)
    if text == "tiny":
        if TINY_FOLDER.is_dir():
            return TINY_FOLDER
        raise CheckpointError(
            f"tiny: {TINY_FOLDER} is missing. Install emostream again, or name a checkpoint folder."
        )
    if text.count("/") != 1 or text.startswith((".", "/", "~")):
        raise CheckpointError(
            f"load_model: {text} is neither a folder nor a hub id (owner/name). Name the folder that holds config.json."
        )
    try:
        return fetch(text)
    except HUB_ERRORS as error:
        raise CheckpointError(
            f"load_model: {text} is no folder here and the hub does not give it ({type(error).__name__}). Check the id "
            "and the network, or download it once elsewhere and name its folder."
        ) from error


def _parts_inside(names: Iterable[str]) -> set[str]:
    """Parts whose weights are among a checkpoint's own tensors."""
    names = list(names)
    return {part.name for part in PARTS if any(name.startswith(part.prefix) for name in names)}


def _check_overrides(towers: Mapping[str, str | Path] | None) -> dict[str, Path]:
    overrides = {name: Path(folder).expanduser() for name, folder in (towers or {}).items()}
    for name, folder in overrides.items():
        if name not in {part.name for part in PARTS}:
            raise ConfigError(
                f"load_model: towers names {name!r}; the parts are vision, audio and gate."
            )
        if not (folder / "config.json").is_file():
            raise CheckpointError(
                f"load_model: {folder / 'config.json'} of the {name} tower is missing. Name the folder that holds it."
            )
    return overrides


def read_config(root: Path) -> dict[str, Any]:
    """config.json of a checkpoint's folder.

    Raises:
        CheckpointError: It is missing or no JSON.
        ConfigError: It is of another model family, or of quantised weights.
    """
    file = root / "config.json"
    published = read_json(file)
    if published.get("model_type") != EmostreamConfig.model_type:
        raise ConfigError(
            f"{file}: model_type is {published.get('model_type')!r}, wanted {EmostreamConfig.model_type!r}. "
            "Name the folder of a HumanOmni / R1-Omni checkpoint."
        )
    if published.get("quantization_config"):
        raise ConfigError(
            f"{file}: quantization_config says that the weights are quantised; wanted fp32, bf16 or fp16. "
            "Name the checkpoint that it was made from."
        )
    return published


def _skeleton(config: EmostreamConfig, dtype: torch.dtype) -> EmostreamForCausalLM:
    """The model with its buffers computed and its parameters allocated but not initialised."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with no_init_weights():
            return EmostreamForCausalLM(config)
    finally:
        torch.set_default_dtype(default)


def _weights_folder(part: Part, config: EmostreamConfig, root: Path, override: Path | None) -> Path:
    """Where the weights of a tower are that the checkpoint does not store."""
    name = getattr(config, part.config_key)
    folder = find_folder(part, name, root, override)
    if folder is None:
        return hub_folder(part, name, root)
    # A folder that only describes its tower, as saving writes them; one with other weights is for `weight_files`.
    describes = not any(p.suffix in {".safetensors", ".bin"} for p in folder.iterdir())
    return hub_folder(part, name, root) if describes and override is None else folder


def _refuse_missing(missing: list[str], root: Path, homes: Mapping[str, Path]) -> None:
    if missing:
        home = next((home for prefix, home in homes.items() if missing[0].startswith(prefix)), root)
        raise CheckpointError(
            f"load_model: {home} lacks {len(missing)} tensors that its config.json asks for, the first {missing[0]}. "
            "The download is incomplete or the configuration belongs to another model: download or copy it again."
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
    image_processor = SiglipImageProcessorPil.from_dict(
        {"size": {"height": size, "width": size}, **_preprocessor(folders["vision"])}
    )
    feature_extractor = WhisperFeatureExtractor.from_dict(
        {"feature_size": config.audio_config.num_mel_bins, **_preprocessor(folders["audio"])}
    )
    gate = folders["gate"]
    if gate is None or not any((gate / name).is_file() for name in ("vocab.txt", "tokenizer.json")):
        # BERT's vocabulary is in no published checkpoint, so it is the one part that always comes from elsewhere.
        gate = hub_folder(PARTS[-1], config.gate_tower, root, VOCABULARY_PATTERNS)
    return EmostreamProcessor(
        image_processor,
        feature_extractor,
        read_tokenizer(Qwen2Tokenizer, root, "left"),
        read_tokenizer(BertTokenizer, gate, "right"),
        config=config,
    )


def _preprocessor(folder: Path | None) -> dict[str, Any]:
    """preprocessor_config.json of a tower's folder; empty without one, since the towers' own defaults serve."""
    file = folder / "preprocessor_config.json" if folder else None
    return read_json(file) if file is not None and file.is_file() else {}
