"""What the synthetic corpus holds: audio-only, video-only and fused classifiers on its cues and on plain features.

    OMP_NUM_THREADS=1 python benchmarks/corpus_baseline.py

`cues` rows read the manifest's recorded cues: what a perfect perceiver would know, the ceiling of each modality.
`measured` rows see pictures and sound through textbook features (histograms of oriented gradients; Praat's measures
and log-mel statistics) and a support vector machine: a floor that a learned model should beat. Nothing here was used
to tune the `ood` generator.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from provenance import RESULTS, write_result
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.ensemble import HistGradientBoostingClassifier, StackingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import recall_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC

from training.claims.measure import VoiceMeasures, measure_voice
from training.data.cues import FACE_UNITS, VOICE_DIMENSIONS
from training.data.manifest import Row
from training.evaluation.probe import uar
from training.synth.actors import SPLITS, Split
from training.synth.clip import clip_row, render_clip
from training.synth.script import write_script

Array = NDArray[np.float64]
MODALITIES = ("video", "audio", "fused")
README = Path(__file__).parent.parent / "docs" / "corpus" / "README.md"
_MARKS = ("<!-- baseline:start -->", "<!-- baseline:end -->")


def cue_features(row: Row) -> tuple[Array, Array]:
    """(face, voice): recorded values, 0 where there is none, and whether each was recorded."""
    assert row.cues is not None
    face, voice = row.cues.face, row.cues.voice
    return (
        np.array([face.get(n, 0.0) for n in FACE_UNITS] + [float(n in face) for n in FACE_UNITS]),
        np.array([voice.get(n, 0.0) for n in VOICE_DIMENSIONS] + [float(bool(voice))]),
    )


def _mel_matrix(bands: int = 24, fft: int = 512, rate_hz: int = 16_000) -> Array:
    def mel(hz: Array) -> Array:
        return 2595 * np.log10(1 + hz / 700)

    bins = mel(np.fft.rfftfreq(fft, 1 / rate_hz))
    edges = np.linspace(mel(np.array(80.0)), mel(np.array(7600.0)), bands + 2)
    up = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    down = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return np.maximum(0, np.minimum(up, down))


_MEL = _mel_matrix()


def sound_features(pcm: NDArray[np.float32]) -> Array:
    """Praat's measures, and mean, spread and movement of 24 log-mel bands."""
    frames = np.lib.stride_tricks.sliding_window_view(pcm, 512)[::160] * np.hanning(512)
    bands = np.log10(np.abs(np.fft.rfft(frames, axis=1)) ** 2 @ _MEL.T + 1e-7)
    found = measure_voice(pcm)
    measures = (
        [0.0] * len(VoiceMeasures.__slots__) if found is None else list(asdict(found).values())
    )
    moves = np.abs(np.diff(bands, axis=0)).mean(0)
    high = np.percentile(bands, 90, axis=0)
    return np.concatenate(
        [measures, [float(found is None)], bands.mean(0), bands.std(0), high, moves]
    )


def picture_features(frames: NDArray[np.uint8]) -> Array:
    """Histograms of oriented gradients (Dalal & Triggs 2005), 9 directions in 11x11 cells of 6 px, mean over frames."""
    cells, side, directions = 11, 6, 9
    row, column = np.indices((cells * side, cells * side)) // side
    out = np.zeros(cells * cells * directions)
    for frame in frames:
        small = cv2.resize(frame, (cells * side, cells * side), interpolation=cv2.INTER_AREA)
        grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
        dx, dy = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
        way = (np.arctan2(dy, dx) % np.pi / np.pi * directions).astype(int) % directions
        bin_of = (row * cells + column) * directions + way
        hog = np.bincount(bin_of.ravel(), np.hypot(dx, dy).ravel(), minlength=len(out))
        local = cv2.blur(hog.reshape(cells, cells, directions).sum(2), (3, 3))
        out += np.sqrt(hog / np.repeat(local.ravel() + 20.0, directions))
    return out / len(frames)


def collect(
    split: Split, clips: int, seed: int, measured: bool, console: Console
) -> dict[str, Any]:
    """Features and labels of clips 0 to `clips` - 1 of a split."""
    data: dict[str, list[Any]] = {"label": [], "clean": [], "video": [], "audio": []}
    for index in track(
        range(clips), f"{split} {'measured' if measured else 'cues'}", console=console
    ):
        if measured:
            frames, pcm, row = render_clip(
                seed, split, index, times_s=np.array([1.4, 2.3, 3.2]), size_px=96
            )
            video, audio = picture_features(frames), sound_features(pcm)
        else:
            row = clip_row(write_script(seed, split, index))
            video, audio = cue_features(row)
        assert row.cues is not None
        data["label"].append(row.label)
        data["clean"].append(row.cues.informative.video and row.cues.informative.audio)
        data["video"].append(video)
        data["audio"].append(audio)
    return {name: np.array(values) for name, values in data.items()}


def inputs(data: dict[str, Any], modality: str) -> Array:
    """Design matrix of one modality or both."""
    both = modality == "fused"
    return np.concatenate([data["video"], data["audio"]], axis=1) if both else data[modality]


def _svm(components: int, columns: slice) -> Any:
    """A support vector machine on principal components of some columns."""
    pick = FunctionTransformer(lambda x: x[:, columns])
    return make_pipeline(pick, StandardScaler(), PCA(components, random_state=0), SVC(C=3.0))


def models(measured: bool, modality: str, video_columns: int) -> dict[str, Any]:
    """Classifiers to try; the fused one of the measured features stacks one of each modality."""
    if measured and modality == "fused":
        one_each = [
            ("video", _svm(160, slice(0, video_columns))),
            ("audio", _svm(80, slice(video_columns, None))),
        ]
        return {"svm": StackingClassifier(one_each, LogisticRegression(max_iter=2000), cv=4)}
    if measured:
        return {"svm": _svm(160 if modality == "video" else 80, slice(None))}
    return {
        "logistic": make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
        "quadratic": QuadraticDiscriminantAnalysis(reg_param=0.05),
        "boosting": HistGradientBoostingClassifier(
            max_iter=150, learning_rate=0.08, random_state=0
        ),
    }


def fit_and_score(
    model: Any, modality: str, train: dict[str, Any], tests: dict[str, Any]
) -> dict[str, Any]:
    """UAR with a 95 % bootstrap interval, on all clips and on those with both modalities informative."""
    x = inputs(train, modality)
    model.fit(x, train["label"])
    out = {}
    rng = np.random.default_rng(0)
    for split, test in tests.items():
        guess, truth, clean = model.predict(inputs(test, modality)), test["label"], test["clean"]
        picks = rng.integers(len(truth), size=(1000, len(truth)))
        spread = [uar(truth[p], guess[p]) for p in picks]
        out[split] = {
            "uar": uar(truth, guess),
            "interval": np.percentile(spread, [2.5, 97.5]).tolist(),
            "uar_both_informative": uar(truth[clean], guess[clean]),
            "recall": dict(
                zip(
                    sorted(set(truth)),
                    recall_score(truth, guess, average=None).tolist(),
                    strict=True,
                )
            ),
        }
    return out


def markdown(result: dict[str, Any], speed: dict[str, Any] | None) -> str:
    """The tables of docs/corpus/README.md."""
    lines = [
        f"Trained on {result['cues']['train_clips']} (cues) and {result['measured']['train_clips']} (measured) "
        f"`train` clips; tested on {result['cues']['test_clips']} and {result['measured']['test_clips']} clips of "
        "each split, unseen actors. UAR in %, 95 % bootstrap interval; in brackets: clips whose two modalities are "
        "both informative.",
        "",
        "| features | classifier | split | video only | audio only | fused |",
        "|---|---|---|---|---|---|",
    ]
    for kind in ("cues", "measured"):
        for name, scores in result[kind]["scores"].items():
            for split in ("test", "ood"):
                cells = []
                for modality in MODALITIES:
                    s = scores[modality][split]
                    low, high = (100 * v for v in s["interval"])
                    cells.append(
                        f"{100 * s['uar']:.1f} ({low:.1f} to {high:.1f}) [{100 * s['uar_both_informative']:.1f}]"
                    )
                lines.append(f"| {kind} | {name} | {split} | {' | '.join(cells)} |")
    origin = result["provenance"]
    lines += [
        "",
        f"Commit `{origin['commit'][:10]}`, {origin['date'][:10]}; `benchmarks/results/corpus_baseline.json`.",
    ]
    if speed:
        lines += ["", "| CPU ms a clip, one core | train, test | ood |", "|---|---|---|"]
        table = speed["cpu_ms_per_clip"]
        lines += [
            f"| {stage} | {ms:.1f} | {table['ood'][stage]:.1f} |"
            for stage, ms in table["train"].items()
        ]
        whole = speed["corpus_synth"]
        lines += [
            "",
            f"`corpus synth` on {whole['workers']} cores: {whole['wall_ms_per_clip']:.0f} ms of wall time and "
            f"{whole['bytes_per_clip'] / 1e3:.0f} kB a clip ({speed['provenance']['machine']['cpu']}; the machine was "
            "shared); `benchmarks/results/corpus.json`.",
        ]
    return "\n".join(lines)


def write_readme() -> None:
    """Put the tables of the committed results between the marks of the README."""
    result = json.loads((RESULTS / "corpus_baseline.json").read_text(encoding="utf-8"))
    speed_file = RESULTS / "corpus.json"
    speed = json.loads(speed_file.read_text(encoding="utf-8")) if speed_file.exists() else None
    text = README.read_text(encoding="utf-8")
    start, end = (text.index(mark) for mark in _MARKS)
    table = markdown(result, speed)
    README.write_text(f"{text[: start + len(_MARKS[0])]}\n{table}\n{text[end:]}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=int, default=8000, help="clips with cues")
    parser.add_argument("--test", type=int, default=4200)
    parser.add_argument("--train-measured", type=int, default=3000)
    parser.add_argument("--test-measured", type=int, default=1050)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--readme", action="store_true", help="only rewrite the tables of docs/corpus/README.md"
    )
    parser.add_argument("--out", type=Path, help="result file")
    options = parser.parse_args()
    if options.readme:
        write_readme()
        return
    cv2.setNumThreads(1)
    console = Console(stderr=True)
    result: dict[str, Any] = {"seed": options.seed}
    table = Table("features", "classifier", "split", *MODALITIES)
    for kind, train_clips, test_clips in (
        ("cues", options.train, options.test),
        ("measured", options.train_measured, options.test_measured),
    ):
        measured = kind == "measured"
        data = {
            split: collect(
                split,
                train_clips if split == "train" else test_clips,
                options.seed,
                measured,
                console,
            )
            for split in SPLITS
        }
        tests = {split: data[split] for split in ("test", "ood")}
        scores: dict[str, Any] = {}
        for modality in MODALITIES:
            tried = models(measured, modality, data["train"]["video"].shape[1])
            for name, model in tried.items():
                scores.setdefault(name, {})[modality] = fit_and_score(
                    model, modality, data["train"], tests
                )
        for name, found in scores.items():
            for split in tests:
                cells = (f"{100 * found[m][split]['uar']:.1f}" for m in MODALITIES)
                table.add_row(kind, name, split, *cells)
        result[kind] = {
            "train_clips": train_clips,
            "test_clips": test_clips,
            "both_informative_share": float(data["test"]["clean"].mean()),
            "scores": scores,
        }
    console.print(table)
    write_result("corpus_baseline", result, options.out)


if __name__ == "__main__":
    main()
