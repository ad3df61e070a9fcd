"""The order and the batches in which clips go through threads and towers."""

import logging

import numpy as np
import pytest
import torch

from emostream.model.presets import from_preset
from tests.training.clips import write_clip
from training.data.clip_encoding import computed_ahead, decode_clip, report_cut, run_by_shape
from training.data.manifest import Row, read_manifest


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
def processor():
    return from_preset("tiny")[1]


def test_of_too_much_sound_the_newest_is_heard_and_said_once(tmp_path, processor, caplog):
    noise = 0.1 * np.random.default_rng(0).standard_normal(7 * 16_000).clip(-1, 1)
    whole = write_clip(tmp_path / "a.wav", pcm=noise, video=False)
    end = write_clip(tmp_path / "b.wav", pcm=noise[-4 * 16_000 :], video=False)
    long, short = (
        decode_clip(processor, Row(path=path, label="sad", split="train"), 8)
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
def test_a_row_that_is_not_within_its_clip_is_named_with_file_and_line(tmp_path, processor, kind):
    write_clip(tmp_path / kind, video=kind != "heard.wav", audio=kind != "seen.mp4")
    lines = [(0.0, 1.2), (0.5, 99.0), (5.0, 99.0)]  # the first is rounded
    (tmp_path / "m.jsonl").write_text(
        "".join(
            f'{{"path": "{kind}", "label": "sad", "split": "train", "start_s": {a}, "end_s": {b}}}\n'
            for a, b in lines
        )
    )
    rows = read_manifest(tmp_path / "m.jsonl")
    good, late, beyond = (decode_clip(processor, row, 8).problem for row in rows)
    assert good is None
    assert late.startswith(f"{tmp_path}/m.jsonl:2: end_s is 99; the clip {kind} ends at 1.0")
    assert beyond.startswith(f"{tmp_path}/m.jsonl:3: ")
