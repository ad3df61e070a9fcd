"""Rendered examples for the small towers: pictures, sound and what was acted, in memory-mapped shards.

Rendering a clip costs as much as several steps of training on it, so it is done once. Shapes: N clips of a shard,
T = `FRAMES` grid points `STEP_S` apart, S pixels a side, U action units, F mel bands, M mel frames, K audio tokens,
R = `TRACKS`.
"""

import json
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.signal
import torch
from numpy.typing import NDArray

from emostream.errors import ConfigError
from emostream.labels import DEFAULT_LABELS
from emostream.model.processor import EmostreamProcessor
from emostream.model.towers import AUDIO_POOL
from emostream.sampling import SAMPLE_RATE_HZ
from training.data.stills import jpeg
from training.synth.acting import ACTION_UNITS, PROSODY, REGIONS
from training.synth.clip import action_units_at, film, speak
from training.synth.script import Script, write_script
from training.synth.speech import GRID_HZ, Speech, plan_speech

FRAMES = 4
STEP_S = 0.5
WINDOW_S = 4.0
TOKEN_S = 0.02 * AUDIO_POOL
#: Of each audio token: log2 of F0 over 150 Hz, glottal shape, and voicing itself.
TRACKS = ("pitch", "rd", "voicing")
#: Actors of the `train` cast from this number on are kept for validation.
HELD_OUT_ACTOR = 1100
#: Label of a modality that cannot be seen or heard.
NO_LABEL = -1

Arrays = dict[str, NDArray[np.generic]]


def is_held_out(actor: str | None) -> bool:
    """Whether a clip of this actor of the `train` cast is for validation."""
    return actor is not None and int(actor.rpartition("-")[2]) >= HELD_OUT_ACTOR


def example(script: Script, processor: EmostreamProcessor) -> Arrays:
    """One clip's arrays, without the leading dimension.

    Half of the sounds and most of the pictures are damaged on top of what the renderer did: rooms, filters, noise
    and JPEG at random, so that the towers do not lean on studio conditions.
    """
    rng = script.rng("tower")
    speech = plan_speech(script)
    # Instants up to the end of the last whole grid point; the sound is a window of its own.
    first_s = float(rng.uniform(0.1, script.duration_s - STEP_S * (FRAMES - 1) - 0.05))
    times_s = first_s + STEP_S * np.arange(FRAMES, dtype=np.float64)
    frames = film(script, speech, times_s)
    if rng.random() < 0.7:
        quality = int(rng.integers(30, 91))
        frames = np.stack([jpeg(frame, quality) for frame in frames])
    start_s = float(rng.uniform(0.0, script.duration_s - WINDOW_S))
    begin = int(start_s * SAMPLE_RATE_HZ)
    pcm = speak(script, speech)[begin : begin + int(WINDOW_S * SAMPLE_RATE_HZ)]
    if rng.random() < 0.5:
        pcm = _room(pcm, rng)
    face, voice = script.acting.face, script.acting.voice
    covered = frozenset().union(*(REGIONS[region] for region in face.covered))
    return {
        "frames": frames,
        "mel": processor.mel(pcm).numpy().astype(np.float16),
        "units": action_units_at(script, times_s),
        "unit_seen": np.array([name not in covered and not face.hidden for name in ACTION_UNITS]),
        "face": _label(face.emotion, not face.hidden),
        "voice": _label(voice.emotion, voice.audible),
        "label": _label(script.label, True),
        "prosody": np.array([voice.prosody[name] for name in PROSODY], np.float32),
        "tracks": _tracks(speech, start_s),
    }


def _label(emotion: str, evident: bool) -> NDArray[np.int64]:
    return np.asarray(DEFAULT_LABELS.index(emotion) if evident else NO_LABEL)


def _room(pcm: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """The same sound in another room, through another microphone: reverberation, tilt, noise."""
    out = pcm.astype(np.float64)
    decay_s = float(rng.uniform(0.1, 0.9))
    t = np.arange(int(decay_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    tail = rng.standard_normal(len(t)) * 10 ** (-3 * t / decay_s)  # 60 dB over decay_s
    tail *= float(rng.uniform(0.1, 1.0)) / np.sqrt((tail**2).sum())
    tail[0] = 1.0
    out = scipy.signal.fftconvolve(out, tail)[: len(pcm)] / np.sqrt(1 + (tail[1:] ** 2).sum())
    spectrum = np.fft.rfft(out)
    octaves = np.log2(np.maximum(np.fft.rfftfreq(len(out), 1 / SAMPLE_RATE_HZ), 60.0) / 1000)
    bumps = sum(
        rng.uniform(-5, 5) * np.exp(-0.5 * ((octaves - rng.uniform(-3, 3)) / 0.6) ** 2)
        for _ in range(3)
    )
    out = np.fft.irfft(spectrum * 10 ** ((rng.uniform(-2, 2) * octaves + bumps) / 20), len(out))
    level = np.sqrt((out**2).mean()) + 1e-5
    noise = rng.standard_normal(len(out)) * level * 10 ** (-rng.uniform(8, 40) / 20)
    return np.clip((out + noise) * 10 ** (rng.uniform(-2, 2) / 20), -1, 1).astype(np.float32)


def _tracks(speech: Speech, start_s: float) -> NDArray[np.float32]:
    """(K, R) tracks at the middle of each audio token."""
    t = start_s + TOKEN_S * (0.5 + np.arange(int(WINDOW_S / 0.02) // AUDIO_POOL))
    at = np.clip(np.rint(t * GRID_HZ).astype(int), 0, len(speech.f0_hz) - 1)
    pitch = np.log2(speech.f0_hz[at] / 150.0)
    return np.stack([pitch, speech.rd[at], speech.voicing[at]], 1).astype(np.float32)


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardPlan:
    """One shard: `clips` clips from corpus index `first` on, of held-out actors or of the others."""

    folder: Path
    seed: int
    first: int
    clips: int
    held_out: bool


def write_shard(plan: ShardPlan, processor: EmostreamProcessor) -> int:
    """Render a shard unless it is there; returns the corpus index behind its last clip."""
    done = plan.folder / "shard.json"
    if done.is_file():
        return int(json.loads(done.read_text())["end"])
    plan.folder.mkdir(parents=True, exist_ok=True)
    maps: Arrays = {}
    index = plan.first
    for place in range(plan.clips):
        while is_held_out((script := write_script(plan.seed, "train", index)).actor.id) != (
            plan.held_out
        ):
            index += 1
        index += 1
        for name, value in example(script, processor).items():
            if name not in maps:
                maps[name] = np.lib.format.open_memmap(
                    plan.folder / f"{name}.npy", "w+", value.dtype, (plan.clips, *value.shape)
                )
            maps[name][place] = value
    for array in maps.values():
        array.flush()  # type: ignore[attr-defined]
    done.write_text(json.dumps({"end": index, "clips": plan.clips}) + "\n")
    return index


def read_shards(folder: Path) -> list[Arrays]:
    """Memory-mapped arrays of every whole shard below a folder.

    Raises:
        ConfigError: There is none.
    """
    out = [
        {
            file.stem: np.load(file, mmap_mode="r", allow_pickle=False)
            for file in sorted(done.parent.glob("*.npy"))
        }
        for done in sorted(folder.glob("*/shard.json"))
    ]
    if not out:
        raise ConfigError(f"{folder}: wanted shards of rendered examples, found none")
    return out


def _work(plan: ShardPlan) -> int:
    from emostream.model.presets import from_preset

    return write_shard(plan, from_preset("tiny")[1])


def render(
    folder: Path,
    *,
    clips: int,
    validation: int,
    seed: int,
    workers: int,
    say: Callable[[str], None],
    size: int = 1000,
) -> None:
    """Write `clips` training and `validation` held-out clips below a folder, in shards; resumable.

    Args:
        folder: Gets `train/000 …` and `validation/000`.
        clips: Training clips, a multiple of `size`.
        validation: Clips of held-out actors.
        seed: Corpus seed; another than that of the clips that the language model is trained on.
        workers: Processes.
        say: Told of each shard.
        size: Clips of a shard.
    """
    # Held-out actors are a twelfth of the cast, so shards may not overlap when they start size * 1.2 apart.
    plans = [
        ShardPlan(
            folder=folder / "validation" / "000",
            seed=seed,
            first=10_000_000,
            clips=validation,
            held_out=True,
        )
    ]
    plans += [
        ShardPlan(
            folder=folder / "train" / f"{number:03d}",
            seed=seed,
            first=number * size * 6 // 5,
            clips=size,
            held_out=False,
        )
        for number in range(clips // size)
    ]
    plans = [plan for plan in plans if not (plan.folder / "shard.json").is_file()]
    if not plans:
        return
    with _pool(min(workers, len(plans))) as pool:
        for plan, _ in zip(plans, pool.map(_work, plans), strict=True):
            say(f"{plan.folder.parent.name}/{plan.folder.name}: {plan.clips} clips")


def _pool(workers: int) -> ProcessPoolExecutor:
    os.environ["OMP_NUM_THREADS"] = "1"  # two workers of two threads each thrash
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))


def batches(
    shards: list[Arrays], size: int, rng: np.random.Generator
) -> Iterator[dict[str, torch.Tensor]]:
    """Endless random batches over all shards; each clip once an epoch."""
    places = [(s, i) for s, shard in enumerate(shards) for i in range(len(shard["label"]))]
    while True:
        order = rng.permutation(len(places))
        for begin in range(0, len(order) - size + 1, size):
            chosen = [places[i] for i in order[begin : begin + size]]
            yield {
                name: torch.from_numpy(np.stack([shards[s][name][i] for s, i in chosen]))
                for name in shards[0]
            }
