"""The lowest versions that pyproject.toml allows, as pip takes them: `python -m tests.version_bounds EXTRA…`.

Each requirement is held at the minor release that its lower bound names. torch is not: its wheels are gigabytes; give
pip another requirement beside these to choose one.
"""

import re
import sys
import tomllib

from packaging.requirements import Requirement

from tests.documents import ROOT


def lowest(extras: list[str]) -> list[str]:
    """Requirements of the base installation and of `extras`, each at its lower bound."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    held = []
    for text in [*project["dependencies"], *(text for extra in extras for text in optional[extra])]:
        requirement = Requirement(text)
        if requirement.name == project["name"]:
            held += lowest(sorted(requirement.extras))
        else:
            held.append(_held(requirement))
    return list(dict.fromkeys(held))


def _held(requirement: Requirement) -> str:
    bounds = [s.version for s in requirement.specifier if s.operator == ">="]
    if requirement.name == "torch" or not bounds:
        return str(requirement)
    minor = re.match(r"\d+\.\d+", bounds[0] + ".0")
    assert minor is not None
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    return f"{requirement.name}{extras}=={minor[0]}.*"


if __name__ == "__main__":
    print("\n".join(lowest(sys.argv[1:])))  # noqa: T201
