"""Several evaluations side by side: rows of models, seeds averaged, paired differences, as JSON and as Markdown.

It reads what `emostream-train eval` writes, in this layout:

    FOLDER/<row>-seed<k>/<split>/    eval.json, run.json, clips.jsonl
    FOLDER/fused.json                optional: what `training.evaluation.probe` reads off the towers, by split

Rows stand in the order of `TITLES`, others behind them by name. The last row is compared with every other.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from emostream.errors import ConfigError
from training.evaluation.bootstrap import SAMPLES, Figure, difference, draws, estimate
from training.evaluation.outcomes import FIGURES, Outcome, figures
from training.evaluation.results import OUTCOMES, RESULT, RUN

TITLES: Final = {
    "base": "before fine-tuning",
    "cold_start": "cold start: SFT on reasoned answers",
    "label_only": "then SFT on labels alone",
    "grpo_paper": "then GRPO, the paper's rewards",
    "grpo": "then GRPO, grounded",
    "grpo_intervention": "then GRPO, grounded and by intervention",
    "grpo_clear": "then SFT on what is clear and GRPO, grounded",
}
"""Name of a row's folder -> what tables call it, in their order."""

COMPARED: Final = ("war", "uar", "label_first_uar", "claim_support_rate", "cue_recall", "agreement")
"""Figures whose differences are given."""

FUSED: Final = "fused.json"
_FUSED_TITLE: Final = "towers alone, a plain classifier"

_FOLDER: Final = re.compile(r"(?P<row>.+?)(?:-seed(?P<seed>\d+))?")

Result = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """One evaluation: a row's model of one seed on one split.

    Attributes:
        row: Which recipe.
        seed: Its seed.
        split: The clips.
        clips: Hash of the clips, to know whether runs can be compared.
        result: Its eval.json.
        outcomes: Index of a clip -> what came of it.
    """

    row: str
    seed: int
    split: str
    clips: str
    result: Result
    outcomes: Mapping[int, Outcome]


def read_runs(folder: str | Path) -> list[Run]:
    """Read all evaluations below a folder, in the order of the table.

    Raises:
        ConfigError: There are none, or a file is not what `eval` writes.
    """
    runs = []
    for path in sorted(Path(folder).glob(f"*/*/{RESULT}")):
        found = _FOLDER.fullmatch(path.parent.parent.name)
        assert found
        outcomes = [Outcome.from_json(value) for value in _lines(path.with_name(OUTCOMES))]
        runs.append(
            Run(
                row=found["row"].replace("-", "_"),
                seed=int(found["seed"] or 0),
                split=path.parent.name,
                clips=str(_read(path.with_name(RUN)).get("clips")),
                result=_read(path),
                outcomes={outcome.index: outcome for outcome in outcomes},
            )
        )
    if not runs:
        raise ConfigError(
            f"table: {folder} holds no evaluations; wanted ROW-seed0/SPLIT/{RESULT}, "
            "from emostream-train eval --out ROW-seed0/SPLIT"
        )
    order = list(TITLES)
    return sorted(
        runs, key=lambda r: (order.index(r.row) if r.row in order else len(order), r.row, r.seed)
    )


def read_fused(folder: str | Path) -> Result:
    """Split -> what a plain classifier reads off the towers; empty where nobody measured it."""
    path = Path(folder) / FUSED
    return _read(path) if path.is_file() else {}


def compare(runs: Sequence[Run], fused: Result | None = None, samples: int = SAMPLES) -> Result:
    """Figures of every row on every split, and what the last row gains over each other.

    A figure is the mean over a row's seeds; its 95 % interval is over clips and, for several seeds, over these too.

    Args:
        runs: From `read_runs`.
        fused: From `read_fused`.
        samples: Bootstrap samples.

    Returns:
        `splits`: name -> `clips`, `fused`, `rows` and `differences`; `runs`: where each came from.

    Raises:
        ConfigError: Runs of one split saw different clips or labels.
    """
    splits = {}
    for split in sorted({run.split for run in runs}, key=lambda s: (s != "test", s)):
        found = _compare([run for run in runs if run.split == split], samples)
        splits[split] = {"fused": (fused or {}).get(split), **found}
    return {
        "splits": splits,
        "runs": [
            {
                "row": run.row,
                "seed": run.seed,
                "split": run.split,
                "model": run.result["model"],
                "manifest": run.result["manifest"],
                "clips": run.result["clips"],
                "skipped": run.result["skipped"],
                **run.result["provenance"],
            }
            for run in runs
        ],
    }


def _compare(runs: Sequence[Run], samples: int) -> Result:
    first = runs[0]
    for run in runs:
        if (run.clips, run.result["labels"]) != (first.clips, first.result["labels"]):
            raise ConfigError(
                f"table: {run.row}-seed{run.seed} and {first.row}-seed{first.seed} were evaluated on different clips "
                f"or labels of {run.split}; evaluate both on one manifest"
            )
    # A clip that one run could not use is left out of all, so that every comparison is paired.
    shared = sorted(set.intersection(*(set(run.outcomes) for run in runs)))
    drawn = draws(len(shared), samples)
    by_row: dict[str, list[tuple[int, dict[str, Figure]]]] = {}
    for run in runs:
        found = figures([run.outcomes[i] for i in shared], run.result["labels"])
        by_row.setdefault(run.row, []).append((run.seed, found))
    whole = np.ones((1, len(shared)))
    rows: Result = {}
    for row, seeds in by_row.items():
        rows[row] = {"seeds": [seed for seed, _ in seeds]}
        for name in FIGURES:
            of_seeds = [found[name] for _, found in seeds]
            rows[row][name] = {
                **asdict(estimate(of_seeds, drawn)),
                "by_seed": [_number(figure(whole)[0]) for figure in of_seeds],
            }
    *others, last = by_row
    ours = [found for _, found in by_row[last]]
    differences = [
        {
            "row": last,
            "against": other,
            **{
                name: asdict(
                    difference(
                        [found[name] for found in ours],
                        [found[name] for _, found in by_row[other]],
                        drawn,
                    )
                )
                for name in COMPARED
            },
        }
        for other in reversed(others)
    ]
    return {"clips": len(shared), "rows": rows, "differences": differences}


def markdown(result: Result) -> str:
    """The tables of `compare`'s result."""
    parts = []
    for split, found in result["splits"].items():
        parts += [f"**{split}**, {found['clips']} clips", "", *_figures(found), ""]
        if found["differences"]:
            parts += [*_differences(found["differences"]), ""]
    parts.append(
        "Percent, with 95 % bootstrap intervals over clips (and seeds, where there are several); differences are "
        "paired, in points. WAR and UAR are of the reasoned answer, label-first UAR of the live label."
    )
    return "\n".join(parts) + "\n"


def _figures(split: Result) -> list[str]:
    head = (
        "model | seeds | WAR | UAR | label-first UAR | format | claims supported | claims a reasoning | cue recall"
        " | label-first agrees | fusion gain"
    )
    lines = [f"| {head} |", f"|---|{'---:|' * head.count('|')}"]
    if fused := split["fused"]:
        gain = fused["both_uar"] - max(fused["video_uar"], fused["audio_uar"])
        scores = f"{100 * fused['both_war']:.1f} | {100 * fused['both_uar']:.1f}"
        lines.append(f"| {_FUSED_TITLE} | 1 | {scores} |{' – |' * 6} {100 * gain:+.1f} |")
    for row, found in split["rows"].items():
        cells = [
            percent(found["war"]),
            percent(found["uar"]),
            percent(found["label_first_uar"]),
            percent(found["format_rate"], interval=False),
            percent(found["claim_support_rate"]),
            "–" if (claims := found["claims_a_clip"]["value"]) is None else f"{claims:.1f}",
            percent(found["cue_recall"]),
            percent(found["agreement"], interval=False),
            percent(found["fusion_gain"], sign=True),
        ]
        lines.append(f"| {' | '.join([_title(row), str(len(found['seeds'])), *cells])} |")
    return lines


def _differences(differences: Sequence[Result]) -> list[str]:
    head = (
        "against | WAR | UAR | label-first UAR | claims supported | cue recall | label-first agrees"
    )
    lines = [f"| {_title(differences[0]['row'])}, {head} |", f"|---|{'---:|' * head.count('|')}"]
    for found in differences:
        cells = [percent(found[name], sign=True) for name in COMPARED]
        lines.append(f"| {' | '.join([_title(found['against']), *cells])} |")
    return lines


def _title(row: str) -> str:
    return TITLES.get(row, row.replace("_", " "))


def percent(found: Result, *, interval: bool = True, sign: bool = False) -> str:
    """A share, or a difference of two (`sign`), as a cell of a table."""
    if found["value"] is None:
        return "–"
    plus = "+" if sign else ""
    text = f"{100 * found['value']:{plus}.1f}"
    if interval and found["interval"]:
        low, high = (f"{100 * bound:{plus}.1f}" for bound in found["interval"])
        text += f" ({low} to {high})"
    return text


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _read(path: Path) -> Result:
    try:
        found: Result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"table: {path} cannot be read: {error}; evaluate again") from error
    return found


def _lines(path: Path) -> list[Result]:
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise ConfigError(f"table: {path} cannot be read: {error}; evaluate again") from error
