"""Several clips of the corpus one after another in one file: what the demo shows.

python -m training.synth.reel --out stream/assets/demo.mp4 --split test --clips 12,40,7
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from training.synth.actors import SPLITS, Split
from training.synth.clip import FRAMES_HZ, render_clip
from training.synth.media import write_mp4
from training.synth.voice import SAMPLE_RATE_HZ


def reel(out: Path, seed: int, split: Split, clips: Sequence[int], size_px: int) -> list[str]:
    """Write the clips to one mp4; returns their labels.

    Args:
        out: File, replaced if it exists.
        seed: The corpus seed.
        split: Which cast.
        clips: Clip numbers, in the order in which they shall be shown.
        size_px: Width and height.
    """
    pictures, sounds, labels = [], [], []
    for index in clips:
        frames, pcm, row = render_clip(seed, split, index, size_px=size_px)
        # Each clip gives whole frames, so that sound and picture stay together at the joints.
        samples = round(len(frames) / FRAMES_HZ * SAMPLE_RATE_HZ)
        pictures.append(frames)
        sounds.append(pcm[:samples])
        labels.append(str(row.label))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_mp4(out, np.concatenate(pictures), np.concatenate(sounds), FRAMES_HZ, SAMPLE_RATE_HZ)
    return labels


def main() -> None:
    """Write a reel."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("--clips", required=True, help="clip numbers, with commas between them")
    parser.add_argument("--size", type=int, default=256)
    options = parser.parse_args()
    clips = [int(text) for text in options.clips.split(",")]
    labels = reel(options.out, options.seed, options.split, clips, options.size)
    print(", ".join(labels))  # noqa: T201  what the clip shows, for its documentation


if __name__ == "__main__":
    main()
