"""The trained models that ship in the package, and under which licences; light to import."""

from pathlib import Path

_ASSETS = Path(__file__).parents[1] / "assets"
#: Their folders, by name; `make small` and `make tiny` make them.
SHIPPED = {name: _ASSETS / name for name in ("small", "tiny")}
DEFAULT_MODEL = "small"
#: Under which licence the weights of each may be used; the code is Apache-2.0.
LICENCES = {"small": "CC BY-NC-SA 4.0", "tiny": "Apache-2.0"}
_TERMS = {
    "small": f"for research only, {LICENCES['small']}; --model tiny is {LICENCES['tiny']}",
    "tiny": f"{LICENCES['tiny']}; it knows rendered actors only",
}


def licence_notice(model: str) -> str | None:
    """A line for whoever starts a model that ships: what it may be used for; None for any other model.

    Args:
        model: As on the command line: a name, a folder or a hub id.
    """
    folder = Path(model).expanduser()
    folder = folder if folder.is_dir() else SHIPPED.get(model, folder)
    for name, own in SHIPPED.items():
        if folder.resolve() == own.resolve():
            return f"model {name}: {_TERMS[name]}"
    return None
