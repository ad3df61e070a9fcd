"""What recipes of several commands share: one process a core, a log for each, and how long each stage took."""

import argparse
import itertools
import json
import logging
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from emostream import load_model
from emostream.errors import EmostreamError
from training.data.features import cache_features
from training.data.manifest import Row
from training.recipe.loop import fast_bfloat16

logger = logging.getLogger(__name__)

#: Clips or completions a step, as `training/configs` have them, and the batches that they are cut into.
BATCHES, PARTS = {"sft": 32, "grpo": 128}, {"sft": 4, "grpo": 1}
CPU = ("--use_cpu", "true", "--bf16", str(fast_bfloat16()).lower())
#: glibc gives large blocks back to the system at once; on a small machine, that alone cost half of the time.
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": "2000000000",
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
    "MALLOC_TOP_PAD_": "200000000",
}
Stage = tuple[str, str, str, tuple[object, ...]]
"""Of a row: `sft` or `grpo`, its part of the corpus, the row to start from, flags."""


class Stages:
    """Stages of a recipe.

    Args:
        name: The recipe's, for messages.
        out: Where everything goes; gets `logs/`, `recipe.json`, `features/`, `runs/` and `models/`.
    """

    def __init__(self, name: str, out: Path):
        self.name, self.out = name, out
        self.features = out / "features"

    def model(self, row: str, seed: int) -> Path:
        """Checkpoint of a row of the table."""
        return self.out / "models" / f"{row}-seed{seed}"

    def manifest(self, name: str) -> Path:
        """Manifest of a part of the corpora."""
        return self.out / "manifests" / f"{name}.jsonl"

    def tuning(
        self,
        command: str,
        row: str,
        start: str,
        seed: int,
        manifest: Path,
        *flags: object,
        processes: int = 1,
    ) -> tuple[object, ...]:
        """The words that train a row by `sft` or `grpo`, from another row of the same seed, in so many processes."""
        words = (
            command, "--out", self.out / "runs" / f"{row}-seed{seed}", "--manifest", manifest,
            "--model", self.model(start, seed), "--features", self.features, "--seed", seed, *flags,
            "--per_device_train_batch_size", BATCHES[command] // max(PARTS[command], processes),
            "--gradient_accumulation_steps", max(1, PARTS[command] // processes),
        )  # fmt: skip
        if processes == 1:
            return train_command(*words)
        together = ("torch.distributed.run", "--standalone", "--nproc_per_node", processes, "-m")
        return (
            sys.executable, "-m", *together, "training.cli", *words, "--ddp_backend", "gloo",
        )  # fmt: skip

    def train_rows(self, rows: Mapping[str, Stage], seeds: Iterable[int]) -> None:
        """Train rows for each seed, a core each; one that would be left over alone has two. What is there stays."""
        missing = [
            (row, seed)
            for row, seed in itertools.product(rows, seeds)
            if not (self.model(row, seed) / "config.json").is_file()
        ]
        cores = os.cpu_count() or 1
        alone = len(missing) - 1 if len(missing) % cores == 1 < cores else len(missing)
        for together, processes in ((missing[:alone], 1), (missing[alone:], 2)):
            commands = {}
            for row, seed in together:
                command, part, start, flags = rows[row]
                if command == "sft":
                    flags = ("--validation", self.manifest("validation"), *flags)
                commands[f"{row}-seed{seed}"] = self.tuning(
                    command, row, start, seed, self.manifest(part), *flags, processes=processes
                )
            self.commands(commands)
            self.keep_trained(commands)

    def keep_trained(self, names: Iterable[str]) -> None:
        """Put what runs have trained, each named as `ROW-seedK`, among the models."""
        for name in names:
            shutil.copytree(self.out / "runs" / name / "model", self.out / "models" / name)

    @contextmanager
    def step(self, step: str, what: str) -> Iterator[None]:
        """Add the minutes of a stage to those that it has had."""
        begun_s = time.monotonic()
        try:
            yield
        finally:
            file = self.out / "recipe.json"
            steps = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
            entry = next((entry for entry in steps if entry["step"] == step), None)
            if entry is None:
                steps.append(entry := {"step": step, "what": what, "minutes": 0.0})
            entry["minutes"] = round(entry["minutes"] + (time.monotonic() - begun_s) / 60, 1)
            self.out.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(steps, indent=1) + "\n", encoding="utf-8")

    def commands(self, commands: Mapping[str, Sequence[object]]) -> None:
        """Run commands, as many at a time as there are cores, one thread each.

        Raises:
            EmostreamError: One failed; the others are let finish.
        """
        waiting = list(commands.items())
        running: dict[str, tuple[subprocess.Popen[bytes], float]] = {}
        failed = []
        logs = self.out / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        while waiting or running:
            while waiting and len(running) < (os.cpu_count() or 1):
                name, words = waiting.pop(0)
                with (logs / f"{name}.log").open("ab") as log:
                    process = subprocess.Popen(
                        [str(word) for word in words],
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        env=environment,
                    )
                running[name] = process, time.monotonic()
                logger.info("%s: begun, says more in %s", name, logs / f"{name}.log")
            time.sleep(0.5)
            for name, (process, begun) in list(running.items()):
                if (code := process.poll()) is not None:
                    del running[name]
                    minutes = (time.monotonic() - begun) / 60
                    logger.info("%s: exit code %d after %.1f minutes", name, code, minutes)
                    failed += [name] if code else []
        if failed:
            raise EmostreamError(
                f"{self.name}: {', '.join(failed)} failed; see {logs / failed[0]}.log. The same command continues."
            )


def encode_all(checkpoint: Path, features: Path, rows: Sequence[Row]) -> None:
    """The towers' features of clips, in a process a core."""
    processes = os.cpu_count() or 1
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        parts = [rows[start::processes] for start in range(processes)]
        list(pool.map(partial(encode, checkpoint, features), parts))


def encode(checkpoint: Path, features: Path, rows: Sequence[Row]) -> None:
    """The towers' features of some clips, in a process of one thread."""
    torch.set_num_threads(1)
    model, processor = load_model(checkpoint)
    cache_features(model, processor, rows, features, batch_size=32)


def train_command(*words: object) -> tuple[object, ...]:
    """The words of an `emostream-train` command."""
    return (sys.executable, "-m", "training.cli", *words)


def run_for_seeds(recipe: Callable[[Path], Any], description: str | None, out: Path) -> None:
    """Command line of a recipe whose `run` takes seeds.

    Args:
        recipe: Makes it of the folder that everything goes to.
        description: What the command says of itself.
        out: That folder, where none is named.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=out)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="N")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    os.environ.update(MALLOC)  # for the processes of all stages
    try:
        recipe(options.out).run(options.seeds)
    except EmostreamError as error:
        sys.exit(str(error))
