"""Which rows of a manifest are evaluated; told before torch is imported, so that a mistake costs no time."""

import random
from collections.abc import Sequence
from pathlib import Path

from emostream.errors import ConfigError
from training.data.manifest import Row, read_manifest


def evaluation_rows(
    manifest: Path, labels: Sequence[str], *, split: str | None, limit: int | None, seed: int
) -> list[Row]:
    """Rows to evaluate, in the manifest's order.

    Args:
        manifest: The JSONL file.
        labels: The label set.
        split: Only this split; all but `train` if None.
        limit: A random sample of at most so many; all if None.
        seed: Of the sample.

    Raises:
        ConfigError: The manifest cannot be read, has no such rows, or `limit` is below 1.
    """
    everything = read_manifest(manifest, labels)
    rows = [row for row in everything if (row.split == split if split else row.split != "train")]
    if not rows:
        splits = sorted({row.split for row in everything})
        raise ConfigError(
            f"{manifest}: no rows to evaluate in split {split or 'other than train'}; "
            f"it has {', '.join(splits)}; choose one with --split"
        )
    if limit is None:
        return rows
    if limit < 1:
        raise ConfigError(f"eval: --limit is {limit}; wanted 1 or more")
    chosen = random.Random(seed).sample(range(len(rows)), min(limit, len(rows)))
    return [rows[i] for i in sorted(chosen)]
