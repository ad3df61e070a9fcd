"""The order and the batches in which clips go through threads and towers."""

import logging
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch

from emostream.media import MediaStats, iter_frames, load_clip, read_audio
from emostream.model.presets import from_preset
from stream.commands.file_windows import file_windows
from stream.windows.attendance import Attendant
from stream.windows.config import InferenceConfig
from tests.training.clips import write_clip
from training.data.clip_encoding import computed_ahead, decode_clip, report_cut, run_by_shape
from training.data.features import cache_features
from training.data.manifest import Row, read_manifest
from training.synth.media import write_mp4

DEMO = Path(str(files("stream") / "assets" / "demo.mp4"))


def test_results_keep_their_order_and_no_more_than_so_many_are_begun_ahead():
    taken = []

    def items():
        for number in range(10):
            taken.append(number)
            yield number

    results = computed_ahead(lambda number: number**2, items(), threads=3, ahead=2)
    assert next(results) == 0
    assert taken == [0, 1, 2]
    assert list(results) == [number**2 for number in range(1, 10)]


def test_a_network_runs_once_for_each_shape():
    batches = []

    def double(batch):
        batches.append(tuple(batch.shape))
        return 2 * batch

    values = [torch.ones(2), None, torch.ones(3), 5 * torch.ones(2)]
    found = run_by_shape(double, values)
    assert batches == [(2, 2), (1, 3)]
    assert found[1] is None
    for value, result in zip(values, found, strict=True):
        assert value is None or torch.equal(result, 2 * value)


@pytest.fixture(scope="module")
def tiny():
    model, processor = from_preset("tiny")
    return model.config, processor


def test_of_too_much_sound_the_newest_is_heard_and_said_once(tmp_path, tiny, caplog):
    config, processor = tiny
    noise = 0.1 * np.random.default_rng(0).standard_normal(7 * 16_000).clip(-1, 1)
    whole = write_clip(tmp_path / "a.wav", pcm=noise, video=False)
    end = write_clip(tmp_path / "b.wav", pcm=noise[-4 * 16_000 :], video=False)
    long, short = (
        decode_clip(processor, Row(path=path, label="sad", split="train"), config)
        for path in (whole, end)
    )
    assert (long.cut_s, short.cut_s) == (3.0, 0.0)
    torch.testing.assert_close(long.mel, short.mel, atol=1e-3, rtol=0)
    with caplog.at_level(logging.WARNING):
        report_cut(0, 2, processor)
        report_cut(1, 2, processor)
    assert [record.getMessage() for record in caplog.records] == [
        "1 of 2 clips have more sound than the model hears; it is given their last 4 s"
    ]


@pytest.mark.parametrize("kind", ["both.mp4", "seen.mp4", "heard.wav"])
def test_a_row_that_is_not_within_its_clip_is_named_with_file_and_line(tmp_path, tiny, kind):
    config, processor = tiny
    write_clip(tmp_path / kind, video=kind != "heard.wav", audio=kind != "seen.mp4")
    lines = [(0.0, 1.2), (0.5, 99.0), (5.0, 99.0)]  # the first is rounded
    (tmp_path / "m.jsonl").write_text(
        "".join(
            f'{{"path": "{kind}", "label": "sad", "split": "train", "start_s": {a}, "end_s": {b}}}\n'
            for a, b in lines
        )
    )
    rows = read_manifest(tmp_path / "m.jsonl")
    good, late, beyond = (decode_clip(processor, row, config).problem for row in rows)
    assert good is None
    assert late.startswith(f"{tmp_path}/m.jsonl:2: end_s is 99; the clip {kind} ends at 1.0")
    assert beyond.startswith(f"{tmp_path}/m.jsonl:3: ")


@pytest.fixture(scope="module")
def visits(tmp_path_factory):
    """Rows of three clips shorter than a window: somebody comes, somebody leaves, and nobody is there at all."""
    folder = tmp_path_factory.mktemp("visits")
    frames = np.stack([frame.rgb for frame in iter_frames(DEMO)])[: round(3.2 * 12.5)]
    pcm = read_audio(DEMO, 1.0, 4.2).pcm
    rows = []
    for name, room, sound in (
        ("comes", slice(0, 15), pcm),
        ("leaves", slice(25, None), pcm),
        ("nobody", slice(None), 0 * pcm),
    ):
        shown = frames.copy()
        shown[room] = 90
        write_mp4(folder / f"{name}.mp4", shown, sound, 12.5, 16_000)
        rows.append(Row(path=folder / f"{name}.mp4", label="sad", split="train"))
    return rows


@pytest.fixture(scope="module")
def face_model():
    model, processor = from_preset("tiny", seed=1)
    model.config.frame_crop, model.config.crop_margin = "face", 1.25
    return model, processor


@pytest.mark.parametrize("which", [0, 1])
def test_a_model_that_is_shown_a_face_is_trained_on_what_infer_shows_it(visits, face_model, which):
    model, processor = face_model
    [window] = file_windows(
        visits[which].path,
        InferenceConfig(),
        source="x",
        audio_track=None,
        most_samples=processor.context_samples(),
        stats=MediaStats(),
    )
    [(attended, _)] = Attendant(model.config).attend(window)
    clip = decode_clip(processor, visits[which], model.config)
    assert clip.problem is None
    if which == 0:
        shown = torch.cat([processor.pixels(frame.rgb[None]) for frame in attended.frames])
        assert torch.equal(clip.pixels, shown)
        # Five frames of the room are not shown: the first of her stands in.
        assert [torch.equal(clip.pixels[0], picture) for picture in clip.pixels].count(True) >= 4
    else:
        assert attended.frames == ()
        assert clip.pixels is None
    assert attended.pcm is not None
    samples = min(len(attended.pcm), processor.context_samples())
    assert torch.equal(clip.mel, processor.mel(attended.pcm[:samples]))


def test_what_nobody_is_in_is_no_clip_for_it(visits, face_model, tmp_path):
    model, processor = face_model
    store = cache_features(model, processor, visits, tmp_path)
    assert [row in store for row in visits] == [True, True, False]
    assert "nobody.mp4: nobody visible, nobody speaking" in store.problem(visits[2])
    assert "vision_features" not in store.features(visits[1])
    # The features of whole frames are others.
    model.config.frame_crop = "whole"
    try:
        whole = cache_features(model, processor, visits, tmp_path)
    finally:
        model.config.frame_crop = "face"
    assert all(row in whole for row in visits)
    both = (own.features(visits[0])["vision_features"] for own in (store, whole))
    assert not torch.equal(*both)


def test_a_model_that_is_shown_whole_frames_is_trained_on_all_there_is(visits, tiny):
    config, processor = tiny
    for row in visits:
        clip, file = decode_clip(processor, row, config), load_clip(row.path, config.num_frames)
        assert torch.equal(clip.pixels, processor.pixels(file.frames))
        assert torch.equal(clip.mel, processor.mel(file.audio))
