"""What GRPO brings over SFT on labels alone, and what other rewards bring to reasons, from the runs of the study.

    python -m training.recipe.effect --out runs/effect --seeds 0 1 2
    python benchmarks/effect.py runs/effect
    python benchmarks/tables.py

Writes benchmarks/results/effect.json and docs/pictures/effect.png.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from provenance import write_result

from training.evaluation.table import Run, compare, read_runs
from training.faithful.pairs import Pair, rates
from training.recipe.effect import REASONING, SETS

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "pictures" / "effect.png"
#: Way -> what it is compared with.
LABELS, PAPER, WIDE = "label_only", "grpo_paper", "grpo_paper_16"
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
            way: side_by_side(runs, ("cold_start", f"{LABELS}_{name}", f"{way}_{name}"))
            for way in (PAPER, WIDE)
        }
        for name in SETS
    }
    measured = {
        "sets": sets,
        "rewards": side_by_side(runs, REASONING),
        "faithful": by_row(options.runs / "faithful"),
        "recipe": json.loads((options.runs / "recipe.json").read_text(encoding="utf-8")),
    }
    write_result("effect", measured, options.out)
    draw(sets)


def side_by_side(runs: Sequence[Run], rows: Sequence[str]) -> dict[str, Any]:
    """Split -> the rows' figures, and what the last gains over the others."""
    chosen = sorted((run for run in runs if run.row in rows), key=lambda run: rows.index(run.row))
    splits: dict[str, Any] = compare(chosen)["splits"]
    return splits


def by_row(folder: Path) -> dict[str, dict[str, Any]]:
    """Row -> kind of change -> its figures over the pairs of all seeds, with intervals over clips."""
    found: dict[str, dict[str, list[Pair]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted(folder.glob("*/pairs.jsonl")):
        row = path.parent.name.rpartition("-seed")[0]
        for line in path.read_text(encoding="utf-8").splitlines():
            pair = Pair(**json.loads(line))
            found[row][pair.kind].append(pair)
    return {
        row: {kind: rates(pairs) for kind, pairs in found[row].items()}
        for row in REASONING
        if row in found
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
                for place, name in enumerate(names):
                    gain = gained(sets[name][way][split], f"{LABELS}_{name}", measure)
                    low, high = gain["interval"]
                    axes.plot([100 * low, 100 * high], [place + shift] * 2, color=colour)
                    axes.plot(
                        100 * gain["value"],
                        place + shift,
                        "o",
                        color=colour,
                        label=("groups of 8", "groups of 16")[way == WIDE] if not place else None,
                    )
            axes.set_yticks(range(len(names)), [spoken(name) for name in names])
            axes.set_title(f"{split}, {title}", fontsize=10)
    panels[0, 0].invert_yaxis()
    panels[0, 0].legend(fontsize=8)
    figure.supxlabel("UAR of GRPO minus UAR of SFT on labels alone, points", fontsize=10)
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE, dpi=110)


def gained(split: dict[str, Any], against: str, measure: str) -> dict[str, Any]:
    """What the last row of a split gains over another."""
    gain: dict[str, Any] = next(d for d in split["differences"] if d["against"] == against)[measure]
    return gain


def spoken(name: str) -> str:
    """What a set of clips is called."""
    clips, wrong = SETS[name]
    return f"{clips:,} clips" + (f", {wrong:.0%} wrong" if wrong else "")


if __name__ == "__main__":
    main()
