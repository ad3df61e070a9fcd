"""`--help` of the trainers: their settings, which live beside code that is slow to import."""

from collections.abc import Iterator
from dataclasses import MISSING, fields
from typing import Any


def describe(command: str) -> Iterator[str]:
    """Lines of help on the settings of `sft` or `grpo`."""
    from training.tuning.settings import RECIPES, read_yaml

    kind: Any
    if command == "sft":
        from training.sft.train import SftSettings as kind

        name, theirs = "cold_start.yaml", "transformers' TrainingArguments"
    else:
        from training.grpo.train import GrpoSettings as kind

        name, theirs = "grpo.yaml", "TRL's GRPOConfig"
    recipe = read_yaml(RECIPES / name)
    yield "settings:"
    for setting in fields(kind):
        value = recipe.pop(setting.name, _default(setting))
        yield f"  {setting.name:<22}{setting.metadata['help']} ({_shown(value)})"
    yield ""
    yield f"and any of {theirs}, of which {name} sets:"
    for other, value in recipe.items():
        yield f"  {other:<32}{_shown(value)}"


def _default(setting: Any) -> Any:
    if setting.default is not MISSING:
        return setting.default
    return None if setting.default_factory is MISSING else setting.default_factory()


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return str(value).lower() if isinstance(value, bool) else str(value)
