"""The files that the documents' commands speak of, small."""

import json
import shutil
from importlib import resources
from pathlib import Path

import numpy as np

from emostream.media import SAMPLE_RATE_HZ, iter_frames, read_audio
from tests.documents import Block
from tests.media_factory import Audio, Video, noise, write_media
from training.synth.media import write_mp4

CLIPS_S = 1.0
RAVDESS_EMOTIONS = ("03", "04", "05")


def fill(folder: Path, files: list[Block]) -> None:
    """Write every input of the documented commands into `folder`.

    Args:
        folder: The reader's working directory.
        files: Titled blocks, which the documents tell the reader to write.
    """
    demo = Path(str(resources.files("stream") / "assets" / "demo.mp4"))
    frames = np.stack([f.rgb for f in iter_frames(demo) if 1 <= f.time_s < 5.6])
    for name in ("clip.mp4", "other.mp4"):  # somebody who speaks
        write_mp4(folder / name, frames, read_audio(demo, 1, 5.6).pcm, 12.5, SAMPLE_RATE_HZ)
    _clip(folder / "recordings" / "day1" / "a.mp4")
    for block in files:
        path = folder / block.title
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, encoding="utf-8")
        if block.language == "csv":
            for line in block.text.splitlines()[1:]:
                _clip(path.parent / line.partition(",")[0])
    _ravdess(folder / "RAVDESS")
    _lists(folder)
    shutil.copytree(Path(__file__).parents[1] / "examples", folder / "examples")


def _ravdess(folder: Path) -> None:
    for actor in ("01", "02"):
        for emotion in RAVDESS_EMOTIONS:
            _clip(folder / f"Actor_{actor}" / f"01-01-{emotion}-01-01-01-{actor}.mp4")


def _lists(folder: Path) -> None:
    """DFEW, MAFW, CREMA-D, EMER, conversations and FER2013: two clips or so, in their published layouts."""
    lists = folder / "DFEW" / "EmoLabel_DataSplit"
    single = folder / "MAFW" / "Train & Test Set" / "single" / "no_caption" / "set_1"
    single.mkdir(parents=True)
    for number, split in enumerate(("train", "test"), 1):
        _clip(folder / "DFEW" / "part_1" / f"{number}.mp4")
        table = lists / f"{split}(single-labeled)" / "set_1.csv"
        table.parent.mkdir(parents=True)
        table.write_text(f"video_name,label\n{number},{number}\n", encoding="utf-8")
        _clip(folder / "MAFW" / "clips" / f"0000{number}.mp4")
        (single / f"{split}.txt").write_text(f"0000{number}.mp4 anger\n", encoding="utf-8")
    _clip(folder / "CREMA-D" / "VideoFlash" / "1001_DFA_ANG_XX.flv")
    _clip(folder / "CREMA-D" / "VideoFlash" / "1002_DFA_HAP_XX.flv")
    _clip(folder / "EMER" / "video" / "samplenew3_1.mp4")
    (folder / "EMER" / "emer.csv").write_text(
        "names,emotions,subtitles,reasons\nsamplenew3_1,\"['sad']\",,He sighs.\n", encoding="utf-8"
    )
    (folder / "FER2013").mkdir()
    faces = "".join(
        f"{number},{' '.join([str(number)] * 48**2)},{part}\n"
        for number, part in enumerate(("Training", "PublicTest", "PrivateTest"))
    )
    (folder / "FER2013" / "fer2013.csv").write_text(
        "emotion,pixels,Usage\n" + faces, encoding="utf-8"
    )
    conversation = {
        "video": "MAFW/clips/00001.mp4",
        "conversations": [
            {"from": "human", "value": "<video>\n<audio>\nWhich emotion?"},
            {"from": "gpt", "value": "angry"},
        ],
    }
    (folder / "MAFW-DFEW-train.json").write_text(json.dumps([conversation]), encoding="utf-8")


def _clip(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_media(
        path,
        Video(
            duration_s=CLIPS_S,
            fps=10,
            size=(64, 48),
            codec="flv1" if path.suffix == ".flv" else "libx264",
        ),
        Audio(duration_s=CLIPS_S, rate_hz=16_000, sound=noise()),
    )
