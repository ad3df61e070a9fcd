"""The towers that were trained on people: their weights and figures, and the card that lies beside them.

python -m training.recipe.small --corpora DIR --out runs/small
python benchmarks/small_towers.py runs/small

Measures how long each takes on one thread, and writes benchmarks/results/small_towers.json and, beside it, both towers
with their card: what `--kept benchmarks/results/small_towers` of the recipe starts from.
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
from training.recipe.small import KEPT, TOWERS, UNITS, VISION_SCORES
from training.recipe.tower_files import read_tower

FOLDER = Path(__file__).parent / "results" / "small_towers"
RUNS = 60

CARD = """\
---
license: cc-by-nc-sa-4.0
library_name: emostream
tags: [emotion-recognition, faces, research]
---

# Towers that have seen and heard people

The vision and the audio tower of the `small` size, {vision:.1f} and {audio:.1f} MB in float16, as
`python -m training.recipe.small` trains them: on people and on rendered actors.

**For research alone: [CC BY-NC-SA 4.0](https://creativecommons.org/licenses/by-nc-sa/4.0/).** The code of this
repository is Apache-2.0; these weights are not, because of what they were trained on:

| set | what | licence |
|---|---|---|
| FER2013, votes of FER+ | {faces:,} faces from the web, ten taggers each | votes MIT; pictures for research |
| web faces | {web:,} faces, one tagger each | research |
| RAVDESS | acted English, 18 speakers | CC BY-NC-SA 4.0 |
| nEMO | acted Polish, by speaker | CC BY-NC-SA 4.0 |
| ASED | acted Amharic, by speaker | research |
| rendered actors | this repository's | Apache-2.0 |

## How well they tell emotions

Linear heads, thrown away since, on people whom no training saw. One seed.

FER+'s private test; clear: at least six of ten taggers agree.

| faces | | accuracy % | UAR % |
|---|---:|---:|---:|
| all with a label | {v[all_faces]:,} | {v[all_accuracy]} | {v[all_uar]} |
| clear | {v[clear_faces]:,} | {v[clear_accuracy]} | {v[clear_uar]} |

UAR (%) of test speakers among the labels that a corpus has, by how much of the speaker was heard before:

| voices | nothing | 30 s | 120 s |
|---|---:|---:|---:|
| RAVDESS | {a[ravdess_0s_uar]} | {a[ravdess_30s_uar]} | {a[ravdess_120s_uar]} |
| nEMO | {a[nemo_0s_uar]} | {a[nemo_30s_uar]} | {a[nemo_120s_uar]} |
| ASED | {a[ased_0s_uar]} | {a[ased_30s_uar]} | {a[ased_120s_uar]} |

**Voices of people whom it has not heard before are read badly.**

## What it must not be used for

A label is a guess about an expression, not a fact about what a person feels. FER2013's faces were found by search
words; fear and disgust are rare in it and told badly. The voices are acted. Nothing is known about how well the towers
do on groups that these sets hold few of. Do not decide anything about anyone by them. The European Union's AI Act
(Regulation 2024/1689), Article 5(1)(f), prohibits systems that infer emotions of people at work and in education,
except for medical or safety reasons; Article 50 has duties for other uses.

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
    for name, folder in KEPT.items():
        shutil.copytree(options.run / "towers" / name, FOLDER / folder, dirs_exist_ok=True)
    for kept in (UNITS, VISION_SCORES):
        shutil.copy(options.run / "runs" / kept, FOLDER / kept)
    (FOLDER / "README.md").write_text(_card(result), encoding="utf-8")


LOGS = {"vision": "faces_and_actors", "audio": "voices"}


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
        vision=towers["vision"]["bytes"] / 1e6,
        audio=towers["audio"]["bytes"] / 1e6,
        faces=result["train_faces"]["ferplus"],
        web=result["train_faces"]["webfaces"],
        v=towers["vision"]["test"],
        a=towers["audio"]["test"],
        commit=origin["commit"][:10],
        date=origin["date"][:10],
    )


if __name__ == "__main__":
    main()
