"""Where the towers of a checkpoint are found, and how their upstream repositories name things.

Looked for in this order: a folder that the user gave; the folder that config.json names, if it exists; a folder of
the same name beside config.json; the hub. Where the weights are stored inside the checkpoint and no folder is found,
built-in configurations of the well-known towers serve, and no network is touched.
"""

import re
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from emostream.checkpoint.files import read_json
from emostream.errors import CheckpointError, ConfigError

#: Configurations of the towers that published checkpoints name, for weights stored inside without a folder.
BUILTIN_CONFIGS: dict[str, dict[str, Any]] = {
    "siglip-base-patch16-224": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 224,
        "patch_size": 16,
    },
    "siglip-so400m-patch14-384": {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "image_size": 384,
        "patch_size": 14,
    },
    "whisper-large-v3": {
        "d_model": 1280,
        "encoder_layers": 32,
        "encoder_attention_heads": 20,
        "encoder_ffn_dim": 5120,
        "decoder_layers": 32,
        "decoder_attention_heads": 20,
        "decoder_ffn_dim": 5120,
        "num_mel_bins": 128,
        "max_source_positions": 1500,
        "vocab_size": 51866,
        "pad_token_id": 50256,
        "bos_token_id": 50257,
        "eos_token_id": 50257,
        "decoder_start_token_id": 50258,
    },
    "bert-base-uncased": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "vocab_size": 30522,
        "max_position_embeddings": 512,
    },
}

#: How long the hub may take to answer at all; its own client waits without end.
HUB_TIMEOUT_S = 10.0

#: What is fetched of a model; weights in any other format never are, nor Whisper's second copy in fp32.
HUB_PATTERNS = ("*.safetensors", "*.json", "*.txt", "*.model")
HUB_IGNORED = ("*fp32*",)

#: What its client raises when the hub gives nothing: a refusal, a name that is no id, no network.
HUB_ERRORS = (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError)

#: Owner on the hub of each tower family, for configs that name a folder of somebody else's machine.
HUB_OWNERS = {"siglip": "google", "whisper": "openai", "bert": "google-bert"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A tower that may live outside the checkpoint.

    Attributes:
        name: `vision`, `audio` or `gate`, as in `load_model(towers=…)`.
        config_key: Key of config.json that says where it is.
        sub_config: Attribute of `EmostreamConfig` that holds its configuration.
        prefix: Of its tensors inside a checkpoint.
        rename: Name in its own repository -> name inside a checkpoint, or None for tensors that are not kept.
        nested: Key under which a larger model's config.json holds the tower's, if it is one.
    """

    name: str
    config_key: str
    sub_config: str
    prefix: str
    rename: Callable[[str], str | None]
    nested: str | None = None

    def select_config(self, config: dict[str, Any]) -> dict[str, Any]:
        """The tower's own configuration out of its repository's config.json."""
        return dict(config.get(self.nested, config)) if self.nested else dict(config)


def _rename_siglip(key: str) -> str | None:
    """Vision tensors of `SiglipModel` and `SiglipVisionModel`, of transformers 4 and 5; the text tower is left."""
    if key.startswith(("text_model.", "logit_")):
        return None
    return "model.vision_tower.vision_tower.vision_model." + key.removeprefix("vision_model.")


def _rename_whisper(key: str) -> str | None:
    """Encoder tensors of any Whisper class, and the classification head that the published checkpoints carry."""
    key = key.removeprefix("model.")
    if key.startswith(("encoder.", "projector.", "classifier.")):
        return "model.audio_tower.audio_tower." + key
    return None


def _rename_bert(key: str) -> str | None:
    """`BertModel` tensors out of any BERT class, with the old names of layer norm parameters."""
    key = key.removeprefix("bert.").replace(".gamma", ".weight").replace(".beta", ".bias")
    if key.startswith("cls.") or key.endswith("position_ids"):
        return None
    return "model.bert_model." + key


PARTS = (
    Part(
        name="vision",
        config_key="mm_vision_tower",
        sub_config="vision_config",
        prefix="model.vision_tower.",
        rename=_rename_siglip,
        nested="vision_config",
    ),
    Part(
        name="audio",
        config_key="mm_audio_tower",
        sub_config="audio_config",
        prefix="model.audio_tower.",
        rename=_rename_whisper,
    ),
    Part(
        name="gate",
        config_key="gate_tower",
        sub_config="gate_config",
        prefix="model.bert_model.",
        rename=_rename_bert,
    ),
)


def folder_name(name: str) -> str:
    """Last component of a tower's hub id or folder (of any system): its folder's name beside config.json.

    Raises:
        ConfigError: There is none.
    """
    base = re.split(r"[\\/]", name.rstrip("\\/"))[-1] if isinstance(name, str) else ""
    if base in ("", ".", ".."):
        raise ConfigError(
            f"config.json: a tower is named {name!r}; wanted a hub id or a folder. Name the tower's folder."
        )
    return base


def find_folder(part: Part, name: str, root: Path, override: Path | None) -> Path | None:
    """A local folder with the tower's config.json, or None.

    Args:
        part: Which tower.
        name: What config.json says: a hub id or a folder.
        root: The checkpoint's folder.
        override: The user's own choice.
    """
    base = folder_name(name)
    candidates = [override] if override else [Path(name).expanduser(), root / base]
    return next((folder for folder in candidates if (folder / "config.json").is_file()), None)


def part_configs(
    published: Mapping[str, Any],
    root: Path,
    inside: Collection[str],
    overrides: Mapping[str, Path],
) -> dict[str, dict[str, Any]]:
    """`EmostreamConfig`'s sub-configurations of a published config.json.

    Args:
        published: config.json, with the names of all towers.
        root: The checkpoint's folder.
        inside: Names of the parts whose weights the checkpoint stores: built-in configurations serve these.
        overrides: Part name -> the user's own folder.

    Raises:
        CheckpointError: A tower is found nowhere.
    """
    configs = {}
    for part in PARTS:
        name = published[part.config_key]
        folder = find_folder(part, name, root, overrides.get(part.name))
        if folder is None and part.name in inside and folder_name(name) in BUILTIN_CONFIGS:
            configs[part.sub_config] = dict(BUILTIN_CONFIGS[folder_name(name)])
        else:
            folder = folder or hub_folder(part, name, root)
            configs[part.sub_config] = part.select_config(read_json(folder / "config.json"))
    return configs


def hub_id(name: str) -> str | None:
    """Hub id of a tower: its own if it has an owner, else the owner of its family and its last component, if known."""
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return name
    base = folder_name(name)
    owner = HUB_OWNERS.get(base.split("-")[0])
    return f"{owner}/{base}" if owner else None


def hub_folder(part: Part, name: str, root: Path, patterns: Collection[str] = HUB_PATTERNS) -> Path:
    """The tower's repository from the hub.

    Raises:
        CheckpointError: The hub does not give it; the message says which folder would do instead.
    """
    repo, beside = hub_id(name), root / folder_name(name)
    cause: Exception | None = None
    if repo is not None:
        try:
            return fetch(repo, patterns)
        except HUB_ERRORS as error:
            cause = error
    hub = f"the hub does not give {repo} ({type(cause).__name__})" if cause else "it is no hub id"
    raise CheckpointError(
        f"load_model: files of the {part.name} tower {name!r} are neither in that folder nor in {beside}, and {hub}. "
        f"Put them into {beside}, or pass towers={{{part.name!r}: FOLDER}}."
    ) from cause


def fetch(repo: str, patterns: Collection[str] = HUB_PATTERNS) -> Path:
    """Local folder of a hub repository, fetched unless it is in the cache.

    Raises:
        LocalEntryNotFoundError: No network within `HUB_TIMEOUT_S`, and not in the cache.
        HfHubHTTPError: The hub refuses.
        HFValidationError: `repo` is no hub id.
    """
    return Path(
        snapshot_download(
            repo,
            allow_patterns=list(patterns),
            ignore_patterns=list(HUB_IGNORED),
            local_files_only=constants.HF_HUB_OFFLINE or not _hub_answers(),
        )
    )


def _hub_answers() -> bool:
    """False only where the network swallows packets; other failures are quick, and the hub's client names them."""
    request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=HUB_TIMEOUT_S).close()
    except TimeoutError:
        return False
    except urllib.error.URLError as error:
        return not isinstance(error.reason, TimeoutError)
    except OSError:
        pass
    return True
