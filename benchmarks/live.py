"""The live pipeline in real time: latency by stage, hops kept, CPU and memory, and how many sources fit.

    python benchmarks/live.py --minutes 10
    python benchmarks/live.py --minutes 2 --sources 8 --labels-only
    python benchmarks/live.py --minutes 2 --model small --clip stream/assets/demo.mp4

Runs `emostream run` as users do, on a generated clip (picture and sound, looped), and subscribes to it. A hop is kept
if a label came for its window; what is missing between the first and the last window is dropped. A model that is shown
a face needs `--clip` with one.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from provenance import write_result
from rich.console import Console
from rich.table import Table

from stream.pubsub.client import EmotionClient, ReceiveTimeout
from stream.pubsub.messages import Label, Reasoning, Status

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.media_factory import Audio, Video, noise, write_media

STAGES = ("capture", "queue", "encode", "prefill", "decode", "total")
WARM_S = 5.0  # after going live: caches and allocators settle


def percentile(values: list[float], percent: float) -> float:
    """The value that `percent` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


class Usage:
    """CPU and memory of a process and its children, sampled."""

    def __init__(self, pid: int):
        self._root = psutil.Process(pid)
        self.samples: list[dict[str, float]] = []
        self._cpu_s, self._at_s = self._read()[0], time.monotonic()

    def sample(self) -> None:
        """Take a sample of the main process, and of all of them."""
        cpu_s, rss, total = self._read()
        now_s = time.monotonic()
        self.samples.append(
            {
                "cpu_percent": 100 * (cpu_s - self._cpu_s) / (now_s - self._at_s),
                "rss_mb": rss / 1e6,
                "rss_all_mb": total / 1e6,
                "threads": self._root.num_threads(),
                "fds": self._root.num_fds(),
            }
        )
        self._cpu_s, self._at_s = cpu_s, now_s

    def _read(self) -> tuple[float, int, int]:
        family = [self._root, *self._root.children(recursive=True)]
        cpu_s = sum(sum(p.cpu_times()[:2]) for p in family)
        rss = [p.memory_info().rss for p in family]
        return cpu_s, rss[0], sum(rss)


def watch(client: EmotionClient, pid: int, seconds: float) -> dict[str, Any]:
    """Collect for so long after every source went live."""
    labels: list[Label] = []
    answers: list[Reasoning] = []
    statuses: dict[str, Status] = {}
    live_s: float | None = None
    usage: Usage | None = None
    sampled_s = 0.0
    while live_s is None or time.monotonic() < live_s + seconds:
        try:
            event = client.recv(timeout_ms=1000)
        except ReceiveTimeout:
            continue
        now_s = time.monotonic()
        if isinstance(event, Status):
            statuses[event.source] = event
            if live_s is None and all(s.state != "starting" for s in statuses.values()):
                live_s = now_s + WARM_S
        elif live_s is not None and now_s >= live_s:
            if isinstance(event, Label):
                labels.append(event)
            elif event.done:
                answers.append(event)
        if live_s is not None and now_s >= live_s and now_s - sampled_s >= 5:
            if usage is None:
                usage = Usage(pid)
            else:
                usage.sample()
            sampled_s = now_s
    assert usage is not None
    return summary(labels, answers, statuses, usage, client.stats.lost)


def summary(
    labels: list[Label],
    answers: list[Reasoning],
    statuses: dict[str, Status],
    usage: Usage,
    lost: int,
) -> dict[str, Any]:
    """Figures of one run."""
    ids: dict[str, list[int]] = {}
    for label in labels:
        ids.setdefault(label.source, []).append(label.window.id)
    expected = sum(max(own) - min(own) + 1 for own in ids.values())
    latency = {
        stage: {
            f"p{p}": percentile([getattr(x.latency_ms, stage) for x in labels], p)
            for p in (50, 95, 99, 100)
        }
        for stage in STAGES
    }
    rss = [sample["rss_mb"] for sample in usage.samples]
    third = max(1, len(rss) // 3)
    return {
        "sources": len(ids),
        "labels": len(labels),
        "hops_expected": expected,
        "hops_dropped": expected - len(labels),
        "lost_in_transport": lost,
        "latency_ms": latency,
        "reasonings": len(answers),
        "reasoning_tokens_per_s": statistics.median(
            [a.tokens / (a.latency_ms.decode / 1e3) for a in answers]
        )
        if answers
        else None,
        "cpu_percent_mean": statistics.mean(s["cpu_percent"] for s in usage.samples),
        "rss_mb_first_third": statistics.mean(rss[:third]),
        "rss_mb_last_third": statistics.mean(rss[-third:]),
        "rss_all_mb_max": max(s["rss_all_mb"] for s in usage.samples),
        "threads_max": max(s["threads"] for s in usage.samples),
        "fds_first_last": [usage.samples[0]["fds"], usage.samples[-1]["fds"]],
        "states": {name: status.state for name, status in statuses.items()},
    }


def measure(options: argparse.Namespace, clip: Path) -> dict[str, Any]:
    """Run the pipeline and watch it."""
    command = [
        sys.executable,
        "-P",
        "-m",
        "stream.commands.cli",
        "run",
        "--bind",
        "tcp://127.0.0.1:*",
    ]
    command += ["--loop", "--model", options.model]
    if options.clip is None:
        command += ["--people=0"]  # its pictures are patterns
    if options.labels_only:
        command += ["--reason-every-s", "0"]
    for index in range(options.sources):
        command += ["--source", f"s{index}={clip}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as pipeline:
        try:
            assert pipeline.stderr is not None
            endpoint = next(
                line.rsplit(" ", 1)[1].strip()
                for line in pipeline.stderr
                if line.startswith("publishing")
            )
            with EmotionClient(endpoint) as client:
                result = watch(client, pipeline.pid, options.minutes * 60)
        finally:
            pipeline.terminate()
        result["exit_code"] = pipeline.wait()
    return result


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--sources", type=int, default=1)
    parser.add_argument("--labels-only", action="store_true")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--clip", type=Path, help="in place of a generated one without people")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clip = write_media(
            Path(folder) / "clip.mp4",
            Video(duration_s=20, fps=25, size=(320, 240)),
            Audio(duration_s=20, sound=noise()),
        )
        result = measure(options, options.clip or clip)
    table = Table("stage", "p50 ms", "p95 ms", "p99 ms", "max ms", title="capture to publish")
    for stage, row in result["latency_ms"].items():
        table.add_row(stage, *(f"{value:.1f}" for value in row.values()))
    console = Console(width=100)
    console.print(table)
    console.print({key: value for key, value in result.items() if key != "latency_ms"})
    name = f"live_{Path(options.model).name}_{options.sources}_sources" + (
        "_labels" if options.labels_only else ""
    )
    write_result(
        name,
        {
            "minutes": options.minutes,
            "model": options.model,
            "clip": None if options.clip is None else options.clip.name,
            **result,
        },
        options.out,
    )


if __name__ == "__main__":
    main()
