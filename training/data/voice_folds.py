"""Voice heads for those whom they were fitted to: of each actor, heads that were fitted without him.

A classifier is right about people whom it was fitted to far more often than about others, and a language model that is
trained on what it says of them learns to believe it too much. So it is trained on what classifiers say that have not
heard the person, and used with one that was fitted to all (stacked generalization, Wolpert 1992).
"""

import json
from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from emostream.errors import ConfigError
from emostream.model.towers import VoiceHeads

_ACTORS = "actors"


def write_voice_folds(path: Path, folds: Sequence[tuple[VoiceHeads, Sequence[str]]]) -> None:
    """Write heads, each with the actors that it was fitted without."""
    tensors = {
        f"{place}.{name}": tensor
        for place, (heads, _) in enumerate(folds)
        for name, tensor in heads.state_dict().items()
    }
    actors = {actor: place for place, (_, without) in enumerate(folds) for actor in without}
    save_file(tensors, path, {_ACTORS: json.dumps(actors)})


def read_voice_folds(path: str | Path) -> dict[str, VoiceHeads]:
    """Actor -> the heads that were fitted without him.

    Raises:
        ConfigError: The file cannot be read or is none of `write_voice_folds`.
    """
    try:
        with safe_open(path, "pt") as file:
            actors: dict[str, int] = json.loads((file.metadata() or {})[_ACTORS])
            folds = []
            for place in range(max(actors.values(), default=-1) + 1):
                weight = file.get_tensor(f"{place}.weight")
                heads = VoiceHeads(weight.shape[1] // 2, weight.shape[0])
                heads.load_state_dict({"weight": weight, "bias": file.get_tensor(f"{place}.bias")})
                folds.append(heads.requires_grad_(False))
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise ConfigError(
            f"voice_folds: {path}: wanted voice heads by fold, as the recipe `small` writes them; found {error}"
        ) from error
    return {actor: folds[place] for actor, place in actors.items()}
