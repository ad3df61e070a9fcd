"""How fast files are annotated: on one and on two workers, and against the offline reference.

    python benchmarks/annotate.py

The clips are the bundled one again and again, at the size and rate of a webcam. The real-time
factor is seconds of media a second of the clock. Processor seconds are given as well: they hold on a machine
that is busy with other things, whose load average is in the result.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from provenance import write_result

from emostream.media import SAMPLE_RATE_HZ, MediaReader, PcmChunk

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.media_factory import Audio, Video, write_media

DEMO = Path(__file__).resolve().parent.parent / "stream" / "assets" / "demo.mp4"
SIZE = (640, 360)


def main() -> None:
    """Generate clips, annotate them in every way, write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--clip-s", type=float, default=60.0)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clips = Path(folder, "clips")
        clips.mkdir()
        _write_clip(clips / "0.mp4", options.clip_s)
        for number in range(1, options.clips):
            shutil.copy(clips / "0.mp4", clips / f"{number}.mp4")
        measured: dict[str, Any] = {
            "model": options.model,
            "clips": options.clips,
            "clip_s": options.clip_s,
            "picture": "640x360, 25 frames a second, one person",
        }
        measured |= _one_clip(clips / "0.mp4", options.model, options.clip_s)
        for jobs in options.jobs:
            command = [sys.executable, "-P", "-m", "stream.commands.cli", "annotate", str(clips)]
            command += ["--out", str(Path(folder, f"out{jobs}")), "--jobs", str(jobs)]
            command += ["--model", options.model, "--reasons", "none"]
            media_s = options.clips * options.clip_s
            measured[f"command_{jobs}_jobs"] = _measure(
                lambda command=command: subprocess.run(command, check=True), media_s
            )
    write_result("annotate", measured, options.out)


def _write_clip(path: Path, clip_s: float) -> None:
    with MediaReader(DEMO) as reader:
        events = list(reader)
    frames = [event for event in events if not isinstance(event, PcmChunk)]
    pcm = np.concatenate([event.pcm for event in events if isinstance(event, PcmChunk)])
    times_s = np.array([frame.time_s for frame in frames])

    def picture(_: int, time_s: float, size: tuple[int, int]) -> NDArray[np.uint8]:
        shown = frames[int(np.searchsorted(times_s, time_s % times_s[-1]))].rgb
        sides = (size[0] - size[1]) // 2
        square = cv2.resize(shown, (size[1], size[1]))
        return np.pad(square, ((0, 0), (sides, sides), (0, 0)), mode="edge")

    def sound(times_s: NDArray[np.float64]) -> NDArray[np.floating]:
        return pcm[(times_s * SAMPLE_RATE_HZ).astype(int) % len(pcm)]

    write_media(
        path,
        Video(duration_s=clip_s, size=SIZE, picture=picture),
        Audio(duration_s=clip_s, sound=sound),
    )


def _one_clip(clip: Path, model: str, clip_s: float) -> dict[str, Any]:
    """Both ways in this process, loading not counted."""
    from emostream.inference.recognizer import Recognizer
    from stream.annotate.annotator import Annotator
    from stream.annotate.settings import Settings
    from stream.commands.offline import infer
    from stream.serve.model import ModelConfig, load
    from stream.windows.config import InferenceConfig

    config, inference = ModelConfig(model=model), InferenceConfig(people=1)
    loaded = load(config)
    settings = Settings(model=config, inference=inference, reasons="none")
    annotator = Annotator(settings, Recognizer(*loaded))
    annotator.annotate(clip, "warm")
    return {
        "annotate": _measure(lambda: annotator.annotate(clip, "clip"), clip_s),
        "infer": _measure(
            lambda: list(infer(clip, *loaded, inference, config.labels, source="clip")), clip_s
        ),
    }


def _measure(work: Callable[[], object], media_s: float) -> dict[str, float]:
    load = os.getloadavg()[0]
    begun_s, before_s = time.perf_counter(), _cpu_s()
    work()
    wall_s, cpu_s = time.perf_counter() - begun_s, _cpu_s() - before_s
    return {
        "media_s": media_s,
        "wall_s": round(wall_s, 2),
        "cpu_s": round(cpu_s, 2),
        "real_time_factor": round(media_s / wall_s, 2),
        "cpu_s_per_media_hour": round(3600 * cpu_s / media_s, 1),
        "load_average": round(load, 1),
    }


def _cpu_s() -> float:
    """Processor seconds of this process and of all that it has waited for."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


if __name__ == "__main__":
    main()
