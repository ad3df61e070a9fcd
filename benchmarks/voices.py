"""Claims about real voices: how many have the sign that the literature gives, by Praat against the speaker's own mean.

    OMP_NUM_THREADS=1 python benchmarks/voices.py corpora/audio.csv --measures runs/voices.jsonl

The first argument is a CSV with the columns path (relative to it), corpus, label and speaker. Each clip is measured
by `training.claims.measure` and compared with the mean and spread of all clips of its speaker, whatever their emotion,
as a listener who knows the speaker would. A claim is made from `VOICE_SALIENT` standard deviations on. What was
measured is kept in `--measures`, so that an interrupted run goes on.
"""

import argparse
import csv
import json
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from provenance import write_result

from emostream.errors import MediaError
from emostream.media import read_audio
from training.claims.measure import Baseline, VoiceMeasures, measure_voice
from training.data.cues import VOICE_SALIENT
from training.evaluation.bootstrap import Ratio, draws, estimate

#: Label -> dimension -> sign. Juslin and Laukka (2003) for anger, fear, happiness and sadness; Banse and Scherer
#: (1996) for disgust; Pell et al. (2009) for surprise. What they leave open or find both ways is left out: fear's level
#: (low, but high in panic) and everything of tremor and breathiness but sadness and fear.
LITERATURE: dict[str, dict[str, int]] = {
    "angry": {"pitch": 1, "pitch_range": 1, "loudness": 1, "rate": 1, "pauses": -1, "tension": 1},
    "fear": {"pitch": 1, "pitch_range": -1, "rate": 1},
    "happy": {"pitch": 1, "pitch_range": 1, "loudness": 1, "rate": 1, "pauses": -1},
    "sad": {
        "pitch": -1, "pitch_range": -1, "loudness": -1, "rate": -1, "pauses": 1, "tension": -1, "breathiness": 1,
    },
    "disgust": {"pitch": -1, "rate": -1},
    "surprise": {"pitch": 1, "pitch_range": 1},
}  # fmt: skip

Row = dict[str, str]


def measured(rows: list[Row], folder: Path, kept: Path, workers: int) -> dict[str, VoiceMeasures]:
    """Path -> measures of every clip with a voice to measure."""
    found: dict[str, VoiceMeasures | None] = {}
    if kept.is_file():
        for line in kept.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            values = entry["measures"]
            found[entry["path"]] = None if values is None else VoiceMeasures(**values)
    todo = [row["path"] for row in rows if row["path"] not in found]
    kept.parent.mkdir(parents=True, exist_ok=True)
    with kept.open("a", encoding="utf-8") as file, ProcessPoolExecutor(workers) as pool:
        paths = [folder / path for path in todo]
        for path, measures in zip(todo, pool.map(_measure, paths, chunksize=16), strict=True):
            found[path] = measures
            values = None if measures is None else asdict(measures)
            file.write(json.dumps({"path": path, "measures": values}) + "\n")
    return {path: measures for path, measures in found.items() if measures is not None}


def _measure(path: Path) -> VoiceMeasures | None:
    try:
        return measure_voice(read_audio(path).pcm)
    except MediaError:
        return None


def deviations(
    rows: list[Row], measures: dict[str, VoiceMeasures]
) -> Iterator[tuple[Row, dict[str, float]]]:
    """Each clip of a speaker with three or more, and its deviations from that speaker's mean over all of them."""
    speakers: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row["path"] in measures:
            speakers[row["corpus"], row["speaker"]].append(row)
    for theirs in speakers.values():
        if len(theirs) >= 3:
            own = Baseline.of([measures[row["path"]] for row in theirs])
            for row in theirs:
                yield row, own.cues(measures[row["path"]])


def agreement(signed: list[tuple[str, list[float]]], least: float) -> dict[str, Any]:
    """How many deviations of `least` and more have the expected sign; the interval is over speakers.

    Args:
        signed: Speaker, and deviations times the expected sign, of each clip.
        least: In the speaker's standard deviations.
    """
    speakers = sorted({speaker for speaker, _ in signed})
    hits, all_ = np.zeros((len(speakers), 1)), np.zeros((len(speakers), 1))
    for speaker, values in signed:
        claimed = [value for value in values if abs(value) >= least]
        all_[speakers.index(speaker)] += len(claimed)
        hits[speakers.index(speaker)] += sum(value > 0 for value in claimed)
    found = estimate([Ratio(hits, all_)], draws(len(speakers)))
    return {"claims": int(all_.sum()), "share": found.value, "interval": found.interval}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", type=Path, help="CSV of the clips")
    parser.add_argument("--measures", type=Path, default=Path("runs/voices.jsonl"))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, help="result file")
    options = parser.parse_args()
    with options.table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    measures = measured(rows, options.table.parent, options.measures, options.workers)
    clips = list(deviations(rows, measures))
    chosen: dict[tuple[str, str, str], list[tuple[str, list[float]]]] = defaultdict(list)
    for row, z in clips:
        speaker = f"{row['corpus']} {row['speaker']}"
        expected = LITERATURE.get(row["label"], {})
        values = {name: sign * z[name] for name, sign in expected.items()}
        for corpus in (row["corpus"], "all"):
            chosen[corpus, "all", "all"].append((speaker, list(values.values())))
            chosen[corpus, row["label"], "all"].append((speaker, list(values.values())))
            for name, value in values.items():
                chosen[corpus, "all", name].append((speaker, [value]))
                chosen[corpus, row["label"], name].append((speaker, [value]))
    results = [
        {
            "corpus": corpus,
            "label": label,
            "dimension": dimension,
            "claims_of_marked": agreement(signed, VOICE_SALIENT),
            "any_deviation": agreement(signed, 0.0),
        }
        for (corpus, label, dimension), signed in sorted(chosen.items())
        if label == "all" or label in LITERATURE
    ]
    write_result(
        "voices",
        {
            "clips": len(rows),
            "measured": len(measures),
            "compared": len(clips),
            "speakers": len({(row["corpus"], row["speaker"]) for row, _ in clips}),
            "marked_from": VOICE_SALIENT,
            "literature": LITERATURE,
            "results": results,
        },
        options.out,
    )


if __name__ == "__main__":
    main()
