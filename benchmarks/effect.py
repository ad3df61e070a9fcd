"""What GRPO brings over SFT on labels alone, and what other rewards bring to reasons, from the runs of the study.

    python -m training.recipe.effect --out runs/effect --seeds 0 1 2
    python benchmarks/effect.py runs/effect
    python benchmarks/tables.py

Writes benchmarks/results/effect.json and docs/pictures/effect.png.
"""

import argparse
import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from provenance import write_result

from emostream.answers import parse_answer
from training.evaluation.results import PREDICTIONS
from training.evaluation.table import Run, compare, read_runs
from training.faithful.pairs import Pair, rates
from training.recipe.effect import FULL, REASONING, SETS

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "pictures" / "effect.png"
LABELS, PAPER, WIDE = "label_only", "grpo_paper", "grpo_paper_16"
#: Set of clips -> how GRPO was tried on it.
TRIED = {name: (PAPER, WIDE) if name == FULL else (PAPER,) for name in SETS}
SHOWN = {"label_first_uar": "live label", "uar": "reasoned answer"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, help="folder of the study")
    parser.add_argument("--out", type=Path, help="result file")
    options = parser.parse_args()
    runs = read_runs(options.runs / "eval")
    sets = {
        name: {
            way: in_short(
                side_by_side(runs, {"cold_start": "", LABELS: f"_{name}", way: f"_{name}"})
            )
            for way in ways
        }
        for name, ways in TRIED.items()
    }
    measured = {
        "sets": {name: {"clips": SETS[name][0], "wrong": SETS[name][1]} for name in SETS},
        "found": sets,
        "minutes": minutes(options.runs / "logs"),
        "without_reasons": without_reasons(options.runs / "eval"),
        "rewards": side_by_side(runs, REASONING),
        "faithful": by_row(options.runs / "faithful"),
        "recipe": json.loads((options.runs / "recipe.json").read_text(encoding="utf-8")),
    }
    write_result("effect", measured, options.out)
    draw(sets)


def side_by_side(runs: Sequence[Run], rows: Mapping[str, str]) -> dict[str, Any]:
    """Split -> figures of rows, and what the last gains over the others.

    Args:
        runs: All there are.
        rows: What a row is called -> what its folder's name has behind that.
    """
    named = {f"{row}{suffix}": row for row, suffix in rows.items()}
    chosen = [replace(run, row=named[run.row]) for run in runs if run.row in named]
    order = list(rows)
    splits: dict[str, Any] = compare(sorted(chosen, key=lambda run: order.index(run.row)))["splits"]
    return splits


def in_short(splits: dict[str, Any]) -> dict[str, Any]:
    """Of figures side by side, those of the labels."""
    return {
        name: {
            "clips": split["clips"],
            "rows": {row: {m: of[m] for m in SHOWN} for row, of in split["rows"].items()},
            "ahead": {d["against"]: {m: d[m] for m in SHOWN} for d in split["differences"]},
        }
        for name, split in splits.items()
    }


def minutes(logs: Path) -> dict[str, float]:
    """Row -> minutes that its training took on average, from what its logs say of a step."""
    taken = defaultdict(list)
    for path in sorted(logs.glob("*-seed*.log")):
        said = re.findall(r"step \d+/(\d+) .* ([\d.]+) s/step", path.read_text(encoding="utf-8"))
        if said:
            steps, seconds = said[-1]
            taken[path.name.rpartition("-seed")[0]].append(int(steps) * float(seconds) / 60)
    return {row: round(sum(values) / len(values), 1) for row, values in taken.items()}


def without_reasons(folder: Path) -> dict[str, list[int]]:
    """Row -> for each seed, how many answers to `test` give no reasons."""
    counts = defaultdict(list)
    for path in sorted(folder.glob(f"*/test/{PREDICTIONS}")):
        texts = [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]
        row = path.parts[-3].rpartition("-seed")[0]
        counts[row].append(sum(not parse_answer(text).think for text in texts))
    return dict(counts)


def by_row(folder: Path) -> dict[str, dict[str, Any]]:
    """Row -> kind of change -> its figures over the pairs of all seeds, with intervals over clips."""
    found: dict[str, dict[str, list[Pair]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted(folder.glob("*/pairs.jsonl")):
        row = path.parent.name.rpartition("-seed")[0]
        for line in path.read_text(encoding="utf-8").splitlines():
            pair = Pair(**json.loads(line))
            found[row][pair.kind].append(pair)
    return {
        row: {kind: rates(pairs) for kind, pairs in found[f"{row}{suffix}"].items()}
        for row, suffix in REASONING.items()
    }


def draw(sets: dict[str, Any]) -> None:
    """Points by which GRPO is ahead of SFT on labels alone, with their intervals, for each set of clips."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(SHOWN), 2, sharex=True, sharey=True)
    names = list(sets)
    for row, (measure, title) in enumerate(SHOWN.items()):
        for column, split in enumerate(("test", "ood")):
            axes = panels[row, column]
            axes.axvline(0, color="0.6", linewidth=1)
            for way, colour, shift in ((PAPER, "tab:blue", -0.14), (WIDE, "tab:orange", 0.14)):
                gains = {
                    place + shift: gained(sets[name][way][split], measure)
                    for place, name in enumerate(names)
                    if way in sets[name]
                }
                for height, gain in gains.items():
                    axes.plot([100 * end for end in gain["interval"]], [height] * 2, color=colour)
                axes.plot(
                    [100 * gain["value"] for gain in gains.values()],
                    list(gains),
                    "o",
                    color=colour,
                    label=("groups of 8", "groups of 16")[way == WIDE],
                )
            axes.set_yticks(range(len(names)), [spoken(name) for name in names])
            axes.set_title(f"{split}, {title}", fontsize=10)
    panels[0, 0].invert_yaxis()
    panels[0, 0].legend(fontsize=8)
    figure.supxlabel("UAR of GRPO minus UAR of SFT on labels alone, points", fontsize=10)
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE, dpi=110)


def gained(split: dict[str, Any], measure: str) -> dict[str, Any]:
    """What the last row of a split gains over SFT on labels alone."""
    gain: dict[str, Any] = split["ahead"][LABELS][measure]
    return gain


def spoken(name: str) -> str:
    """What a set of clips is called."""
    clips, wrong = SETS[name]
    return f"{clips:,} clips" + (f", {wrong:.0%} wrong" if wrong else "")


if __name__ == "__main__":
    main()
