"""How fast files are annotated: on one and on two workers, and against the offline reference.

    python benchmarks/annotate.py

The real-time factor is seconds of media a second of the clock. Processor seconds are given as well: they hold on a
machine that is busy with other things, whose load average is in the result.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from provenance import write_result

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.media_factory import Audio, Video, noise, write_media


def main() -> None:
    """Generate clips, annotate them in every way, write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--clip-s", type=float, default=60.0)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clips = Path(folder, "clips")
        clips.mkdir()
        for number in range(options.clips):
            write_media(
                clips / f"{number}.mp4",
                Video(duration_s=options.clip_s, size=(640, 360)),
                Audio(duration_s=options.clip_s, sound=noise(number)),
            )
        measured: dict[str, Any] = {
            "model": options.model,
            "clips": options.clips,
            "clip_s": options.clip_s,
            "picture": "640x360, 25 frames a second",
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


def _one_clip(clip: Path, model: str, clip_s: float) -> dict[str, Any]:
    """Both ways in this process, loading not counted."""
    from emostream.inference.recognizer import Recognizer
    from stream.annotate.annotator import Annotator
    from stream.annotate.settings import Settings
    from stream.commands.offline import infer
    from stream.serve.model import ModelConfig, load
    from stream.windows.config import InferenceConfig

    config, inference = ModelConfig(model=model), InferenceConfig()
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
