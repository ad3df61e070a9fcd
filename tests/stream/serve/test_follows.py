"""The live label follows what is acted: `emostream run` with each model that ships, on the clip of `emostream demo`.

When which emotion is acted is known from the scripts that the clip was rendered from, and that it was rendered from
these is checked against its pictures.
"""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from emostream.checkpoint.shipped import SHIPPED
from emostream.media import iter_frames
from stream.pubsub.messages import Status
from tests.stream.live_rig import live
from training.synth.clip import FRAMES_HZ, frame_times, render_clip
from training.synth.script import write_script

CLIP = Path(str(files("stream") / "assets" / "demo.mp4"))
SEED, SPLIT, NUMBERS = 0, "test", (3192, 512, 107, 188)  # as given to training.synth.reel
WINDOW_S = 4.0


@pytest.fixture(scope="module")
def acted():
    """(start_s, end_s, emotion) of each part of the clip."""
    parts, start = [], 0
    for number in NUMBERS:
        script = write_script(SEED, SPLIT, number)
        end = start + len(frame_times(script))
        parts.append((start / FRAMES_HZ, end / FRAMES_HZ, script.label))
        start = end
    return parts


def test_the_clip_shows_these_scripts(acted):
    shown = list(iter_frames(CLIP))
    assert len(shown) == round(acted[-1][1] * FRAMES_HZ)
    for number, (start_s, _, _) in zip(NUMBERS, acted, strict=True):
        picture = shown[round((start_s + 2.0) * FRAMES_HZ)].rgb
        [rendered], _, _ = render_clip(
            SEED, SPLIT, number, times_s=np.array([2.0]), size_px=picture.shape[0], audio=False
        )
        assert np.abs(picture.astype(float) - rendered).mean() < 6


@pytest.mark.parametrize("model", SHIPPED)
def test_the_rolling_label_follows_the_actor(acted, model):
    arguments = ("--source", str(CLIP), "--pace", "max", "--model", model, "--people", "1")
    with live(*arguments) as running:
        running.until(lambda event: isinstance(event, Status))
        running.until_stopped()
        assert running.wait() == 0
        labels = running.labels()
        reasonings = [event for event in running.reasonings() if event.done]
    assert {label.model for label in labels} == {model}, "trained weights, not random ones"
    assert {label.people for label in labels} == {1}
    for start_s, end_s, emotion in acted:
        # Windows that lie within the part: what was acted before is out of sight, but not out of the rolling scores.
        whole = [
            label
            for label in labels
            if start_s <= label.window.end_s - WINDOW_S and label.window.end_s <= end_s
        ]
        assert whole
        assert [label.label for label in whole] == [emotion] * len(whole)
        assert whole[-1].smoothed.label == emotion
    # The rolling label passes through all of them, in this order.
    order = [emotion for _, _, emotion in acted]
    rolling = iter(label.smoothed.label for label in labels)
    assert all(emotion in rolling for emotion in order)
    # So does the reasoning, where its window shows one emotion alone.
    for reasoning in reasonings:
        for start_s, end_s, emotion in acted:
            if start_s <= reasoning.window.end_s - WINDOW_S and reasoning.window.end_s <= end_s:
                assert reasoning.answer == emotion
                assert reasoning.think
