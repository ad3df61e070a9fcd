"""What tells one run from another, so that an output folder is only gone on with by the run that began it."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from torch import nn

from emostream.errors import ConfigError
from training.data.manifest import Row

_SHOWN: Final = 40
"""Values of more letters are named, not shown."""


def weights_digest(model: nn.Module) -> str:
    """A hash of sums of all parameters, whatever device they are on."""
    weights = hashlib.sha256()
    for name, parameter in model.named_parameters():
        total = parameter.detach().double()
        weights.update(f"{name} {total.sum().item()!r} {total.abs().sum().item()!r}".encode())
    return weights.hexdigest()


def training_digest(rows: Iterable[Row]) -> str:
    """A hash of what can be learned from rows; the folder of the clips does not count."""
    clips = hashlib.sha256()
    for row in rows:
        cues = None if row.cues is None else asdict(row.cues)
        told = (row.path.name, row.label, row.start_s, row.end_s, cues, row.answer, row.reason)
        clips.update(f"{told}\n".encode(errors="backslashreplace"))
    return clips.hexdigest()


def claim(file: Path, run: Mapping[str, Any], what: str) -> None:
    """Write down what is run in a folder, or check that it is the same as before.

    Args:
        file: Where it is kept, in that folder.
        run: What must be the same, as JSON can hold it.
        what: What a run is called: "evaluation".

    Raises:
        ConfigError: Another run has been begun there, or the file is damaged.
    """
    now = json.loads(json.dumps(run))
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps(now, indent=1) + "\n")
        return
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{file}: not JSON ({error}); choose another --out") from error
    differs = [
        _change(key, before.get(key), now[key]) for key in now if before.get(key) != now[key]
    ]
    if differs:
        raise ConfigError(
            f"{file.parent}: holds another {what} (other {', '.join(differs)}); choose another --out"
        )


def _change(name: str, before: Any, now: Any) -> str:
    both = f"{name} ({json.dumps(before)} there, {json.dumps(now)} here)"
    return both if len(both) - len(name) <= _SHOWN else name


def write_whole(path: Path, text: str) -> None:
    """Write a file in one step, so that a reader never sees half of it."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
