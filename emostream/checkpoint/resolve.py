"""What a checkpoint consists of and where it lies: found once, then handed on.

A checkpoint is a folder with config.json, one or several safetensors files and a tokenizer. Its three towers may be
stored inside it or elsewhere. They are looked for in this order: a folder that the user gave; the folder that
config.json names, if it exists; a folder of the same name beside config.json; the hub. Where the weights are stored
inside the checkpoint and no folder is found, built-in configurations of the well-known towers serve, and no network is
touched.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emostream.checkpoint.files import read_json, tensor_names, weight_files
from emostream.checkpoint.hub import HUB_ERRORS, HUB_PATTERNS, fetch, hub_id, is_hub_id
from emostream.checkpoint.parts import BUILTIN_CONFIGS, MODEL_TYPE, PARTS, Part, folder_name
from emostream.checkpoint.shipped import SHIPPED
from emostream.errors import CheckpointError, ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundPart:
    """A tower of one checkpoint, and where it is.

    Attributes:
        part: Which tower.
        name: What config.json calls it: a hub id or a folder.
        root: The checkpoint's folder.
        folder: A local folder with the tower's config.json, or None.
        chosen: Whether the user named that folder.
        inside: Whether the checkpoint stores the tower's weights, so that its configuration may be a built-in one.
    """

    part: Part
    name: str
    root: Path
    folder: Path | None
    chosen: bool
    inside: bool

    def config(self) -> dict[str, Any]:
        """The tower's own configuration.

        Raises:
            CheckpointError: It is found nowhere, or cannot be read.
        """
        base = folder_name(self.name)
        if self.folder is None and self.inside and base in BUILTIN_CONFIGS:
            return dict(BUILTIN_CONFIGS[base])
        folder = self.folder or self.fetch()
        return self.part.select_config(read_json(folder / "config.json"))

    def weights(self) -> list[Path]:
        """The safetensors files that hold the tower where the checkpoint does not; none if it does.

        Raises:
            CheckpointError: They are found nowhere.
        """
        if self.inside:
            return []
        if self.folder is None:
            return weight_files(self.fetch())
        # A folder that only describes its tower, as saving writes them; one with other weights is for `weight_files`.
        describes = not any(p.suffix in {".safetensors", ".bin"} for p in self.folder.iterdir())
        return weight_files(self.fetch() if describes and not self.chosen else self.folder)

    def fetch(self, patterns: Collection[str] = HUB_PATTERNS) -> Path:
        """The tower's repository from the hub.

        Raises:
            CheckpointError: The hub does not give it; the message says which folder would do instead.
        """
        repo, beside = hub_id(self.name), self.root / folder_name(self.name)
        cause: Exception | None = None
        if repo is not None:
            try:
                return fetch(repo, patterns)
            except HUB_ERRORS as error:
                cause = error
        hub = (
            f"the hub does not give {repo} ({type(cause).__name__})" if cause else "it is no hub id"
        )
        raise CheckpointError(
            f"load_model: files of the {self.part.name} tower {self.name!r} are neither in that folder nor in "
            f"{beside}, and {hub}. Put them into {beside}, or pass towers={{{self.part.name!r}: FOLDER}}."
        ) from cause


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """What one checkpoint consists of.

    Attributes:
        root: Its folder.
        published: Its config.json.
        stored: Tensor names in each of its own safetensors files; empty where weights were not asked for.
        parts: Its towers.
    """

    root: Path
    published: Mapping[str, Any]
    stored: Mapping[Path, list[str]]
    parts: tuple[FoundPart, ...]

    def files(self) -> list[Path]:
        """The files that decide what it computes: configurations and weights, its own and its towers'.

        Raises:
            CheckpointError: One of them is missing.
        """
        files = [self.root / "config.json", *self.stored]
        for found in self.parts:
            files += [found.folder / "config.json"] if found.folder else []
            files += found.weights()
        return files


def find_checkpoint(
    path_or_id: str | Path,
    towers: Mapping[str, str | Path] | None = None,
    *,
    weights: bool = True,
) -> Checkpoint:
    """Find what a checkpoint consists of; of its files only config.json and the headers of its weights are read.

    Args:
        path_or_id: A folder, a hub id, or `small` or `tiny`, which ship in the package.
        towers: Folders that override where `vision`, `audio` and `gate` parts are looked for.
        weights: Whether the weights are wanted; without, the checkpoint need not have any.

    Raises:
        CheckpointError: There is no such checkpoint, or something of it is missing.
        ConfigError: config.json is of another model family, or `towers` names no tower.
    """
    overrides = _check_overrides(towers or {})
    root = checkpoint_folder(path_or_id)
    published = read_config(root)
    stored = {file: tensor_names(file) for file in weight_files(root)} if weights else {}
    names = [name for of_file in stored.values() for name in of_file]
    inside = {part.name for part in PARTS if any(name.startswith(part.prefix) for name in names)}
    parts = find_parts(published, root, inside if weights else None, overrides)
    return Checkpoint(root=root, published=published, stored=stored, parts=parts)


def find_parts(
    published: Mapping[str, Any],
    root: Path,
    inside: Collection[str] | None = None,
    overrides: Mapping[str, Path] | None = None,
) -> tuple[FoundPart, ...]:
    """The towers of a checkpoint; nothing is fetched yet.

    Args:
        published: config.json.
        root: The checkpoint's folder.
        inside: Names of the towers whose weights the checkpoint stores; all of them if None.
        overrides: Tower name -> the user's own folder.
    """
    found = []
    for part in PARTS:
        name, override = part.name_in(published), (overrides or {}).get(part.name)
        beside = root / folder_name(name)
        candidates = [override] if override else [Path(name).expanduser(), beside]
        folder = next((f for f in candidates if (f / "config.json").is_file()), None)
        found.append(
            FoundPart(
                part=part,
                name=name,
                root=root,
                folder=folder,
                chosen=override is not None,
                inside=inside is None or part.name in inside,
            )
        )
    return tuple(found)


def checkpoint_folder(path_or_id: str | Path) -> Path:
    """The local folder of a checkpoint; a hub id is fetched (safetensors, JSON and tokenizer files only).

    Raises:
        CheckpointError: No such folder, the hub does not give it, or the installation lacks a model that ships with it.
    """
    folder = Path(path_or_id).expanduser()
    if folder.is_dir():
        return folder
    text = str(path_or_id)
    if text in SHIPPED:
        if SHIPPED[text].is_dir():
            return SHIPPED[text]
        raise CheckpointError(
            f"{text}: {SHIPPED[text]} is missing. Install emostream again, or name a checkpoint folder."
        )
    if not is_hub_id(text):
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


def read_config(root: Path) -> dict[str, Any]:
    """config.json of a checkpoint's folder.

    Raises:
        CheckpointError: It is missing or no JSON.
        ConfigError: It is of another model family, or of quantised weights.
    """
    file = root / "config.json"
    published = read_json(file)
    if published.get("model_type") != MODEL_TYPE:
        raise ConfigError(
            f"{file}: model_type is {published.get('model_type')!r}, wanted {MODEL_TYPE!r}. "
            "Name the folder of a HumanOmni / R1-Omni checkpoint."
        )
    if published.get("quantization_config"):
        raise ConfigError(
            f"{file}: quantization_config says that the weights are quantised; wanted fp32, bf16 or fp16. "
            "Name the checkpoint that it was made from."
        )
    return published


def _check_overrides(towers: Mapping[str, str | Path]) -> dict[str, Path]:
    overrides = {name: Path(folder).expanduser() for name, folder in towers.items()}
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
