"""Refuses to run with someone else's `stream`, `export`, `training` or `emostream` in place of ours.

These are names that other people's folders have too. Python takes the first on its path: the working directory under
`python -m` or `python -c`, what PYTHONPATH names, or another distribution that installed a package of the same name.
Standard library only and quick, as every command does this first.
"""

import importlib.machinery
import importlib.util
import sys
from pathlib import Path

from emostream.errors import ConfigError

PACKAGES = ("emostream", "training", "export", "stream")


def shadowed_packages(root: Path | None = None) -> dict[str, str]:
    """Packages of ours that resolve to something else, and to what.

    Args:
        root: the folder that holds our packages; by default the one that this module was loaded from.
    """
    root = (root or Path(__file__).parents[1]).resolve()
    found = {name: _location(name) for name in PACKAGES}
    return {
        name: place for name, place in found.items() if place != str(root / name / "__init__.py")
    }


def refuse_shadowed_packages() -> None:
    """Raise if any of our packages would be taken from elsewhere.

    Raises:
        ConfigError: it would be; the message names what is in the way.
    """
    if shadowed := shadowed_packages():
        raise ConfigError(describe(shadowed))


def describe(shadowed: dict[str, str]) -> str:
    """What is in the way of which package, and what to do about it."""
    culprits = "; ".join(f"`{name}` is {place}" for name, place in shadowed.items())
    return (
        f"packages of emostream are shadowed: {culprits}; wanted those in {Path(__file__).parents[1]}. "
        "Rename or uninstall what is in the way, take its folder off PYTHONPATH, or start Python from "
        "another folder or with -P"
    )


def _location(name: str) -> str:
    """File that `import name` gives, or gave."""
    module = sys.modules.get(name)
    if module is not None and getattr(module, "__file__", None):
        return str(Path(str(module.__file__)).resolve())
    try:
        spec: importlib.machinery.ModuleSpec | None = importlib.util.find_spec(name)
    except ValueError:  # a module without a spec, put there by hand
        spec = None
    if spec is None:
        return "nowhere to be found"
    if spec.origin is None:  # a folder without __init__.py
        return ", ".join(spec.submodule_search_locations or ()) or "a package without a file"
    return str(Path(spec.origin).resolve())
