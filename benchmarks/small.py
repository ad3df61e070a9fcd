"""Figures of the small model on people and actors, and the card that ships with it.

python benchmarks/small.py runs/small --ships grpo-seed0 --install
python benchmarks/small.py runs/other
python benchmarks/tables.py

The first argument is what `make small` fills. Writes benchmarks/results/small.json and, with `--install`, the model in
half precision into emostream/assets/small with its card. Without `--ships` the run's seeds and minutes stand beside
what is in that file.
"""

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from provenance import RESULTS, provenance, write_result

from emostream import load_model, save_model
from emostream.checkpoint.resolve import SHIPPED
from emostream.labels import DEFAULT_LABELS
from training.data.manifest import Row, read_manifest
from training.evaluation.probe import uar
from training.evaluation.results import PREDICTIONS, RESULT, Prediction
from training.recipe.people_card import people_card
from training.recipe.people_faces import CLEAR_VOTES

SPLITS = ("test", "ood")
HEARD = {"0": "test_voices", "60": "test_voices@60"}
Scored = tuple[Row, Prediction]


def scored(run: Path, model: str, test: str) -> list[Scored]:
    """Rows of a test and what a model made of them, of those that it could be shown."""
    rows = read_manifest(run / "manifests" / f"{test.partition('@')[0]}.jsonl")
    file = run / "eval" / model / test / PREDICTIONS
    lines = file.read_text(encoding="utf-8").splitlines()
    found = [Prediction.from_json(json.loads(line)) for line in lines]
    return [(rows[p.index], p) for p in found if p.first is not None]


def judged(pairs: Sequence[Scored], among: Sequence[str] = DEFAULT_LABELS) -> dict[str, Any]:
    """Accuracy and UAR (%) of the live label among some labels."""
    wanted = [p.label for _, p in pairs]
    found = [max(among, key=lambda k: p.scores["both"].get(k, -math.inf)) for _, p in pairs]
    right = sum(w == f for w, f in zip(wanted, found, strict=True))
    return {
        "clips": len(pairs),
        "accuracy": round(100 * right / len(pairs), 1),
        "uar": round(100 * uar(wanted, found), 1),
    }


def reasons(file: Path) -> dict[str, Any]:
    """How many claims about voices hold by Praat, against the speaker's mean over all that was recorded of him (%)."""
    result = json.loads(file.read_text(encoding="utf-8"))
    return {
        name: {
            "value": _percent(result[name]),
            "interval": [_percent(end) for end in result["intervals"][name]],
        }
        for name in ("claim_support_rate", "hallucinated_claim_rate", "cue_recall")
    } | {"claims_a_clip": round(result["claims_a_clip"], 2), "clips": result["clips_with_cues"]}


def by_corpus(pairs: Sequence[Scored]) -> dict[str, Any]:
    """Voices of each corpus among its labels."""
    out = {}
    for corpus in sorted({str(row.meta["corpus"]) for row, _ in pairs}):
        own = [pair for pair in pairs if pair[0].meta["corpus"] == corpus]
        out[corpus] = judged(own, sorted({p.label for _, p in own}))
    return out


def measure(run: Path, model: str) -> dict[str, Any]:
    """Everything that the card says."""
    faces = scored(run, model, "test_faces")
    clear = [pair for pair in faces if pair[0].votes.get(pair[1].label, 0) >= CLEAR_VOTES]
    read = json.loads((run / "eval" / model / "test_faces" / RESULT).read_text(encoding="utf-8"))
    neutral = [p.first == "neutral" for _, p in faces if p.label == "neutral"]
    voices = {heard: scored(run, model, test) for heard, test in HEARD.items()}
    sexes = {}
    for corpus in sorted({str(row.meta["corpus"]) for row, _ in voices["0"]}):
        theirs = [pair for pair in voices["0"] if pair[0].meta["corpus"] == corpus]
        for sex in ("f", "m"):
            own = [q for q in theirs if q[0].meta["sex"] == sex]
            if own:
                among = sorted({p.label for _, p in theirs})
                sexes[f"{corpus}, {sex}"] = judged(own, among)
    actors: dict[str, Any] = {}
    for split in SPLITS:
        for name in (model, "tiny"):
            file = run / "eval" / name / split / RESULT
            result = json.loads(file.read_text(encoding="utf-8"))
            actors.setdefault(split, {})["tiny" if name == "tiny" else "small"] = {
                "clips": result["clips"],
                "live_uar": _percent(result["label_first"]["uar"]),
                "reasoned_uar": _percent(result["uar"]),
                "supported": _percent(result["claim_support_rate"]),
                "recall": _percent(result["cue_recall"]),
                "claims_a_clip": round(result["claims_a_clip"], 1),
                "skipped": sum(result["skipped"].values()),
            }
    return {
        "faces": {
            "all": judged(faces),
            "clear": judged(clear),
            "recall": {k: _percent(v) for k, v in read["label_first"]["recall"].items()},
            "ece": _percent(read["ece"]),
            "neutral_recall": round(100 * sum(neutral) / len(neutral), 1),
        },
        "voices": {heard: by_corpus(pairs) for heard, pairs in voices.items()},
        "by_sex": sexes,
        **talkers(run, model),
        "actors": actors,
    }


def every(run: Path) -> dict[str, dict[str, float | None]]:
    """Row -> the figures by which models are compared, of each that was put to all tests."""
    tests = {*SPLITS, "test_faces", *HEARD.values()}
    out = {}
    for folder in sorted((run / "eval").glob("*-seed*")):
        if all((folder / test / RESULT).is_file() for test in tests):
            found = measure(run, folder.name)
            figures = {f"faces, {kind}": found["faces"][kind]["uar"] for kind in ("all", "clear")}
            figures |= {
                f"{corpus}, {heard} s heard": scores["uar"]
                for heard, corpora in found["voices"].items()
                for corpus, scores in corpora.items()
            }
            for split, models in found["actors"].items():
                figures[f"actors, {split}"] = models["small"]["live_uar"]
                figures[f"claims that hold, {split}"] = models["small"]["supported"]
                figures[f"marked cues mentioned, {split}"] = models["small"]["recall"]
                figures[f"claims a clip, {split}"] = models["small"]["claims_a_clip"]
            for heard, test in HEARD.items():
                told = reasons(folder / test / RESULT)
                figures[f"claims that hold, voices, {heard} s heard"] = told["claim_support_rate"][
                    "value"
                ]
                figures[f"claims a clip, voices, {heard} s heard"] = told["claims_a_clip"]
            out[folder.name] = figures
    return out


def talkers(run: Path, model: str) -> dict[str, Any]:
    """How many neutral talkers are called neutral, if the run has any."""
    if not (run / "eval" / model / "talkers").is_dir():
        return {}
    found = [p.first == "neutral" for _, p in scored(run, model, "talkers")]
    return {"talkers": {"clips": len(found), "neutral": sum(found)}}


def add(run: Path, file: Path) -> None:
    """Put a further run's seeds beside those of a result file, and how long its stages took."""
    result = json.loads(file.read_text(encoding="utf-8"))
    found = every(run)
    steps = json.loads((run / "recipe.json").read_text(encoding="utf-8"))
    added = {"provenance": provenance(), "seeds": list(found), "recipe": steps}
    result["seeds"] = dict(sorted((result["seeds"] | found).items()))
    result["further_runs"] = [*result.get("further_runs", []), added]
    file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    write_card(result)
    print(json.dumps(added))


def write_card(result: dict[str, Any]) -> None:
    """The card of the model that ships, from its figures."""
    (SHIPPED["small"] / "README.md").write_text(people_card(result), encoding="utf-8")


def _percent(value: float | None) -> float | None:
    return None if value is None else round(100 * value, 1)


def main() -> None:
    """Measure, install, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="what the recipe filled")
    parser.add_argument("--ships", metavar="ROW-seedK", help="which model ships")
    parser.add_argument("--install", action="store_true", help="put it into the package")
    parser.add_argument("--out", type=Path, help="result file")
    options = parser.parse_args()
    if options.ships is None:
        add(options.run, options.out or RESULTS / "small.json")
        return
    model, processor = load_model(options.run / "models" / options.ships)
    folder = SHIPPED["small"]
    if options.install:
        save_model(model.to(torch.float16), processor, folder)
    weights = [path for path in folder.rglob("*") if path.is_file() and path.name != "README.md"]
    recipe = options.run / "recipe.json"
    measured = {
        "model": {
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "bytes": sum(path.stat().st_size for path in weights),
            "temperature": model.config.label_temperature,
        },
        "ships": options.ships,
        "recipe": json.loads(recipe.read_text(encoding="utf-8")),
        **measure(options.run, options.ships),
        "reasons_of_voices": {
            heard: reasons(options.run / "eval" / options.ships / test / RESULT)
            for heard, test in HEARD.items()
        },
        "seeds": every(options.run),
    }
    file = options.out or RESULTS / "small.json"
    if file.is_file():  # how long it took from nothing
        before = json.loads(file.read_text(encoding="utf-8"))
        measured["further_runs"] = before.get("further_runs", [])
    path = write_result("small", measured, options.out)
    write_card(json.loads(path.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
