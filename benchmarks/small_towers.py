"""The towers that were trained on people: their weights and figures, and the card that lies beside them.

python -m training.recipe.small --corpora DIR --out runs/small
python benchmarks/small_towers.py runs/small

Measures how long each takes on one thread, and writes benchmarks/results/small_towers.json and, beside it, the vision
tower with its card: what further training starts from. The audio tower is no better than the tiny model's yet and is
not kept.
"""

import argparse
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from provenance import write_result

from emostream.model.presets import from_preset
from training.data.manifest import read_manifest
from training.recipe.people_faces import soft_target
from training.recipe.small import TOWERS
from training.recipe.tower_files import read_tower

FOLDER = Path(__file__).parent / "results" / "small_towers"
KEPT = "small-siglip"
RUNS = 60

CARD = """\
---
license: cc-by-nc-sa-4.0
library_name: emostream
tags: [emotion-recognition, faces, research]
---

# A vision tower that has seen people

The vision tower of the `small` size, {size:.1f} MB in float16, as `python -m training.recipe.small` trains it. There is
no language model behind it yet: it is what its training starts from.

**For research alone: [CC BY-NC-SA 4.0](https://creativecommons.org/licenses/by-nc-sa/4.0/).** The code of this
repository is Apache-2.0; these weights are not, because of what they were trained on:

| set | what | licence |
|---|---|---|
| FER2013, votes of FER+ | {faces:,} faces from the web, ten taggers each | votes MIT; pictures for research |
| web faces | {web:,} faces, one tagger each | research |

## How well it tells emotions

A linear head on the tower, thrown away since; FER+'s private test, which no training saw. One seed. Clear: at least
six of ten taggers agree.

| faces | | accuracy % | UAR % |
|---|---:|---:|---:|
| all with a label | {v[all_faces]:,} | {v[all_accuracy]} | {v[all_uar]} |
| clear | {v[clear_faces]:,} | {v[clear_accuracy]} | {v[clear_uar]} |

## What it must not be used for

A label is a guess about an expression, not a fact about what a person feels. FER2013's faces were found by search
words; fear and disgust are rare in it and told badly. Nothing is known about how well the tower does on groups that
these sets hold few of. Do not decide anything about anyone by it. The European Union's AI Act (Regulation 2024/1689),
Article 5(1)(f), prohibits systems that infer emotions of people at work and in education, except for medical or safety
reasons; Article 50 has duties for other uses.

Commit `{commit}`, {date}.
"""


def main() -> None:
    """Copy, measure, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="what the recipe made")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, _ = from_preset("small")
    towers: dict[str, Any] = {}
    for name in TOWERS:
        home = options.run / "towers" / name
        read_tower(model, name, home)
        log = (options.run / "runs" / f"{LOGS[name]}.jsonl").read_text(encoding="utf-8")
        last = json.loads(log.splitlines()[-1])
        scores = (options.run / "runs" / f"{name}.scores.json").read_text(encoding="utf-8")
        towers[name] = {
            "bytes": (home / "model.safetensors").stat().st_size,
            "steps": last["step"],
            "wall_minutes": round(last["seconds"] / 60, 1),
            **json.loads(scores),
        }
    backbone = model.model
    with torch.inference_mode():
        towers["vision"]["ms_a_face"] = _milliseconds(
            lambda: backbone.vision(torch.zeros(1, 3, 64, 64))
        )
        towers["audio"]["ms_a_window"] = _milliseconds(
            lambda: backbone.audio(torch.zeros(1, 128, 400))
        )
    seen = {}
    for corpus in ("ferplus", "webfaces"):
        rows = read_manifest(options.run / "manifests" / f"{corpus}.jsonl")
        seen[corpus] = sum(r.split == "train" and soft_target(r) is not None for r in rows)
    path = write_result("small_towers", {"seed": 0, "train_faces": seen, "towers": towers})
    result = json.loads(path.read_text(encoding="utf-8"))
    shutil.copytree(options.run / "towers" / "vision", FOLDER / KEPT, dirs_exist_ok=True)
    (FOLDER / "README.md").write_text(_card(result), encoding="utf-8")


LOGS = {"vision": "faces", "audio": "voices"}


def _milliseconds(run: Callable[[], object]) -> float:
    """Processor time of one call, median; other processes may share the machine."""
    took = []
    for _ in range(RUNS):
        begun = time.process_time()
        run()
        took.append(1e3 * (time.process_time() - begun))
    return round(sorted(took)[RUNS // 2], 2)


def _card(result: dict[str, Any]) -> str:
    towers, origin = result["towers"], result["provenance"]
    return CARD.format(
        size=towers["vision"]["bytes"] / 1e6,
        faces=result["train_faces"]["ferplus"],
        web=result["train_faces"]["webfaces"],
        v=towers["vision"]["test"],
        commit=origin["commit"][:10],
        date=origin["date"][:10],
    )


if __name__ == "__main__":
    main()
