"""`corpus synth`: real files, the same from any number of workers, resumable, with clear refusals."""

import hashlib
import io
import json
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
from rich.console import Console

from emostream.errors import ConfigError
from training.data.manifest import read_manifest
from training.synth import command, sheets
from training.synth.clip import FRAMES_HZ, clip_name, render_clip
from training.synth.command import synth

QUIET = Console(file=io.StringIO())


def digests(folder: Path) -> dict[str, str]:
    return {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (folder / "clips").iterdir()
    }


def decode(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with av.open(str(path)) as container:
        frames = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])
    with av.open(str(path)) as container:
        pcm = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])
    return frames, pcm


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("corpus")
    report = synth(out, 5, 4, "train", 1, size_px=64, console=QUIET)
    assert (report.clips, report.written, report.kept, report.workers) == (5, 5, 0, 1)
    return out


def test_files_hold_the_clip(corpus):
    rows = read_manifest(corpus / "manifest.jsonl")
    assert len(rows) == 5
    for index, row in enumerate(rows):
        frames, pcm, expected = render_clip(4, "train", index, size_px=64)
        seen, heard = decode(row.path)
        assert row.path == corpus / clip_name(index)
        assert (row.label, row.actor, row.cues, row.meta) == (
            expected.label, expected.actor, expected.cues, expected.meta,
        )  # fmt: skip
        assert seen.shape == frames.shape
        assert np.abs(seen.astype(int) - frames).mean() < 12
        assert abs(len(heard) - len(pcm)) < 2100  # AAC pads to whole frames of 1024
        n = 4 * 16_000 - 2048
        lag = max(range(0, 2049, 1024), key=lambda k: np.dot(heard[k : k + n], pcm[:n]))
        if np.abs(pcm).max() > 0.02:
            assert np.corrcoef(heard[lag : lag + n], pcm[:n])[0, 1] > 0.8
        with av.open(str(row.path)) as container:
            assert container.streams.video[0].codec_context.name == "h264"
            assert container.streams.audio[0].codec_context.name == "aac"
            assert float(container.streams.video[0].average_rate) == pytest.approx(FRAMES_HZ)


@pytest.mark.slow
def test_workers_do_not_change_the_files(corpus, tmp_path):
    report = synth(tmp_path, 5, 4, "train", 2, size_px=64, console=QUIET)
    assert report.workers == 2
    assert digests(tmp_path) == digests(corpus)
    assert (tmp_path / "manifest.jsonl").read_text() == (corpus / "manifest.jsonl").read_text()


def test_resumes_and_extends(corpus, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(corpus, out)
    before = digests(out)
    (out / clip_name(1)).unlink()
    (out / clip_name(3)).write_bytes((out / clip_name(3)).read_bytes()[:5000])  # cut short
    (out / "clips" / ".000002.99.part.mp4").write_bytes(b"left by a killed run")
    kept_time = (out / clip_name(0)).stat().st_mtime_ns
    report = synth(out, 6, 4, "train", 1, size_px=64, console=QUIET)
    assert (report.clips, report.written, report.kept) == (6, 3, 3)
    after = digests(out)
    assert {k: after[k] for k in before} == before
    assert set(after) - set(before) == {"000005.mp4"}
    assert (out / clip_name(0)).stat().st_mtime_ns == kept_time
    assert len(read_manifest(out / "manifest.jsonl")) == 6


def test_a_finished_corpus_is_left_alone(corpus):
    before = digests(corpus)
    report = synth(corpus, 5, 4, "train", 2, size_px=64, console=QUIET)
    assert (report.written, report.kept) == (0, 5)
    assert digests(corpus) == before


def test_moved_corpora_still_find_their_clips(corpus, tmp_path):
    shutil.copytree(corpus, tmp_path / "moved")
    rows = read_manifest(tmp_path / "moved" / "manifest.jsonl")
    assert all(row.path.is_file() and tmp_path in row.path.parents for row in rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clips": 0}, "clips is 0; wanted 1 or more"),
        ({"seed": -1}, "seed is -1"),
        ({"split": "dev"}, "unknown split 'dev'; wanted train, test, ood"),
        ({"workers": 0}, "workers is 0"),
        ({"size_px": 63}, "size_px is 63; wanted an even number"),
    ],
)
def test_bad_arguments_are_refused(tmp_path, change, message):
    arguments = {"clips": 1, "seed": 0, "split": "train", "workers": 1, "size_px": 64, **change}
    with pytest.raises(ConfigError, match=message):
        synth(tmp_path / "x", **arguments, console=QUIET)
    assert not (tmp_path / "x").exists()


def test_another_corpus_in_the_folder_is_not_overwritten(corpus):
    with pytest.raises(ConfigError, match=r'"seed": 4.*name another folder'):
        synth(corpus, 5, 5, "train", 1, size_px=64, console=QUIET)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        synth(tmp_path / "x", 1, 0, console=QUIET)


def test_a_damaged_corpus_file_is_named(tmp_path):
    (tmp_path / "corpus.json").write_text("{")
    with pytest.raises(ConfigError, match=r"corpus\.json is not JSON"):
        synth(tmp_path, 1, 0, console=QUIET)


def test_a_full_disk_is_refused_before_rendering(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(command.shutil, "disk_usage", lambda _: usage._replace(free=10_000_000))
    with pytest.raises(ConfigError, match=r"1000 clips may take .* GB free; ask for fewer"):
        synth(tmp_path / "x", 1000, 0, console=QUIET)
    assert not list((tmp_path / "x" / "clips").iterdir())


def test_corpus_file_says_what_it_is(corpus):
    found = json.loads((corpus / "corpus.json").read_text())
    assert found == {
        "generator": command.GENERATOR_VERSION,
        "seed": 4,
        "split": "train",
        "size_px": 64,
    }


def test_committed_sheets_are_small_and_there():
    folder = Path(__file__).parents[3] / "docs" / "corpus"
    for split in ("train", "test", "ood"):
        for kind in ("faces", "voices"):
            assert 50_000 < (folder / f"{kind}-{split}.jpg").stat().st_size < 500_000


def test_a_face_sheet_shows_every_emotion():
    sheet = sheets.face_sheet("test", seed=1)
    rows = sheet.shape[0] // 96
    assert rows == 8  # seven emotions and the hidden faces
    spread = [sheet[96 * k : 96 * (k + 1), 80:].std() for k in range(rows)]
    assert min(spread) > 20
