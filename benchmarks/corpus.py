"""How fast the synthetic corpus is made: in memory and to mp4, a core, by part.

    OMP_NUM_THREADS=1 python benchmarks/corpus.py

Times are CPU time of one process (the machine may be shared), so they hold for a core of its own; `wall` rows are
`corpus synth` on all cores, spawn and all. The floor is the codec alone on pictures and sound that exist already.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from provenance import write_result
from rich.console import Console
from rich.table import Table

from training.synth.actors import SPLITS
from training.synth.clip import FRAMES_HZ, SIZE_PX, film, frame_times, render_clip, speak
from training.synth.command import synth, usable_cpus
from training.synth.media import write_mp4
from training.synth.script import write_script
from training.synth.speech import plan_speech
from training.synth.voice import SAMPLE_RATE_HZ


def cpu_ms(function: Callable[[int], Any], clips: int) -> float:
    """Mean CPU milliseconds of `function(index)` after one warm-up call."""
    function(0)
    begun = time.process_time()
    for index in range(clips):
        function(index)
    return (time.process_time() - begun) * 1e3 / clips


def parts(split: str, clips: int, folder: Path) -> dict[str, float]:
    """CPU milliseconds a clip of each stage."""
    scripts = [write_script(0, split, i) for i in range(clips)]  # type: ignore[arg-type]
    speeches = [plan_speech(s) for s in scripts]
    pairs = list(zip(scripts, speeches, strict=True))
    grid = np.arange(0.5, 4.1, 0.5)
    ready = [(film(s, p, frame_times(s)), speak(s, p)) for s, p in pairs[:20]]

    def encode(index: int) -> None:
        frames, pcm = ready[index % len(ready)]
        write_mp4(folder / "floor.mp4", frames, pcm, FRAMES_HZ, SAMPLE_RATE_HZ)

    def whole(index: int) -> None:
        frames, pcm, _ = render_clip(0, split, index)  # type: ignore[arg-type]
        write_mp4(folder / "whole.mp4", frames, pcm, FRAMES_HZ, SAMPLE_RATE_HZ)

    return {
        "script and speech plan": cpu_ms(lambda i: plan_speech(write_script(0, split, i)), clips),  # type: ignore[arg-type]
        "voice and microphone": cpu_ms(lambda i: speak(*pairs[i]), clips),
        "8 frames": cpu_ms(lambda i: film(*pairs[i], grid), clips),
        "all frames": cpu_ms(lambda i: film(*pairs[i], frame_times(pairs[i][0])), clips),
        "codec alone (floor of a file)": cpu_ms(encode, clips),
        "in memory, 8 frames and sound": cpu_ms(
            lambda i: render_clip(0, split, i, times_s=grid), clips
        ),  # type: ignore[arg-type]
        "mp4, whole clip": cpu_ms(whole, clips),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=100, help="clips timed a stage")
    parser.add_argument("--out", type=Path, help="result file")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    console = Console(stderr=True)
    measured: dict[str, Any] = {
        "clips": options.clips,
        "size_px": SIZE_PX,
        "frames_hz": FRAMES_HZ,
        "cpu_ms_per_clip": {},
        "corpus_synth": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        for split in SPLITS:
            if split != "test":  # the same generator as train
                measured["cpu_ms_per_clip"][split] = parts(split, options.clips, Path(folder))
        workers = usable_cpus()
        report = synth(
            Path(folder) / "corpus", 4 * options.clips, 0, "train", workers, console=console
        )
        measured["corpus_synth"] = {
            "workers": workers,
            "clips": report.written,
            "wall_ms_per_clip": report.elapsed_s * 1e3 / report.written,
            "bytes_per_clip": report.bytes / report.clips,
        }
    table = Table("CPU ms a clip", *measured["cpu_ms_per_clip"])
    for stage in measured["cpu_ms_per_clip"]["train"]:
        table.add_row(stage, *(f"{m[stage]:.1f}" for m in measured["cpu_ms_per_clip"].values()))
    console.print(table)
    write_result("corpus", measured, options.out)


if __name__ == "__main__":
    main()
