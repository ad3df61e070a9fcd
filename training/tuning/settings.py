"""Settings of a training run: a recipe of ours, the user's YAML over it, flags over both."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

import yaml
from transformers import TrainingArguments
from trl import TrlParser

from emostream.errors import ConfigError
from training.tuning.checks import check_arguments, check_numbers

RECIPES = Path(__file__).parents[1] / "configs"

#: transformers 5.24 renamed these; the names that older versions know too are served.
_RENAMED = {
    "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs",
}


class _Parser(TrlParser):
    """TRL's parser; what the user got wrong is one line."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"settings: {message}")


def read_settings(
    kinds: Sequence[type],
    *,
    recipe: str,
    config: Path | None,
    flags: Sequence[str],
    fixed: Mapping[str, Any],
    over: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[Any, ...]:
    """Instances of dataclasses, filled from a recipe, a YAML file and flags.

    Args:
        kinds: Dataclasses with distinct field names.
        recipe: File in `training/configs` that holds the defaults.
        config: The user's file, or the name of a recipe in `training/configs`, such as `label_only`.
        flags: `--name value`, as on the command line.
        fixed: What none of them may change.
        over: What goes over the file, and flags over it.

    Raises:
        ConfigError: A file cannot be read, a name or value is wrong, or a library is missing that one asks for.
    """
    chosen = read_yaml(_find(config)) if config else {}
    values = {**read_yaml(RECIPES / recipe), **chosen, **over, **fixed}
    for flag in flags:
        name = flag.removeprefix("--").partition("=")[0].replace("-", "_")
        if flag.startswith("--") and name in fixed:
            raise ConfigError(f"settings: {name} is {fixed[name]} here; leave out {flag}.")
    values = {current_name(name): value for name, value in values.items()}
    parser = _Parser(list(kinds), allow_abbrev=False)
    unknown = sorted(set(values) - {action.dest for action in parser._actions})
    if unknown:
        raise ConfigError(f"{config or recipe}: unknown setting {unknown[0]!r}.")
    parser.set_defaults_with_config(**values)
    try:
        words = [_current_flag(flag) for flag in flags]
        check_numbers(vars(parser.parse_args(words)))
        parsed: tuple[Any, ...] = parser.parse_args_into_dataclasses(words)
    except ConfigError:
        raise
    except (ImportError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(f"settings: {' '.join(str(error).split())}") from error
    for part in parsed:
        if isinstance(part, TrainingArguments):
            check_arguments(part)
    return parsed


def _find(config: Path) -> Path:
    recipe = RECIPES / f"{config}.yaml"
    return recipe if not config.is_file() and recipe.is_file() else config


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ConfigError: There is none.
    """
    try:
        found = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the settings: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: wanted names and values, found {type(found).__name__}.")
    return found


def current_name(name: str) -> str:
    """What the installed transformers calls a setting."""
    renamed = _RENAMED.get(name, name)
    return renamed if renamed in TrainingArguments.__dataclass_fields__ else name


def _current_flag(flag: str) -> str:
    name, equals, value = flag.removeprefix("--").partition("=")
    return f"--{current_name(name)}{equals}{value}" if flag.startswith("--") else flag
