"""Which file is meant: by path, by name, behind links, in several copies, or not fetched yet."""

import json
import os
import shutil
import unicodedata

import pytest

from emostream.errors import ConfigError
from tests.training.clips import write_clip
from training.corpora.candidates import Options, Skipped
from training.corpora.clips import ClipFinder
from training.corpora.conversations import split_of
from training.corpora.index import index
from training.data.manifest import read_manifest

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 123\n"


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("media") / "clip.mp4")


@pytest.fixture
def put(clip, tmp_path):
    """Copy the one clip to each of the paths given, below the corpus's folder."""

    def put(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(clip, tmp_path / name)
        return tmp_path

    return put


def run(kind, folder, **options):
    """Index, and give the rows as path below the folder -> (label, split), beside the report."""
    report = index(kind, folder, folder / "m.jsonl", Options(**options))
    rows = read_manifest(folder / "m.jsonl")
    return {r.path.relative_to(folder).as_posix(): (r.label, r.split) for r in rows}, report


def talk(video, reply):
    return {"video": video, "conversations": [{"from": "gpt", "value": reply}]}


def test_a_clip_that_is_not_where_its_row_says_is_missing(put):
    folder = put("ben/03.mp4")
    (folder / "labels.csv").write_text("path,label\nanna/03.mp4,happy\nben/03.mp4,sad\n")
    rows, report = run("folder", folder)
    assert rows == {"ben/03.mp4": ("sad", "train")}
    assert report.skipped == (Skipped("anna/03.mp4", "missing"),)


def test_a_file_name_is_enough_where_the_user_says_so_and_only_one_has_it(put):
    folder = put("ben/03.mp4")
    (folder / "labels.csv").write_text("path,label\nanna/03.mp4,happy\n")
    assert run("folder", folder, by_name=True)[0] == {"ben/03.mp4": ("happy", "train")}
    write_clip(folder / "carl" / "03.mp4", brightness=30)
    with pytest.raises(ConfigError, match=r"several clips are named 03\.mp4"):
        run("folder", folder, by_name=True)


def test_a_bare_name_means_a_clip_anywhere_but_no_other_format(put):
    folder = put("ben/03.mp4", "ben/04.mp4")
    (folder / "labels.csv").write_text("path,label\n03.mp4,happy\n04.wav,sad\n")
    rows, report = run("folder", folder)
    assert rows == {"ben/03.mp4": ("happy", "train")}
    assert report.skipped == (Skipped("04.wav", "missing"),)


def test_conversations_do_not_take_another_splits_clip(put):
    folder = put("train/dia0_utt0.mp4")
    (folder / "train.json").write_text(json.dumps([talk("train/dia0_utt0.mp4", "sad")]))
    (folder / "dev.json").write_text(json.dumps([talk("dev/dia0_utt0.mp4", "happy")]))
    rows, report = run("conversations", folder)
    assert rows == {"train/dia0_utt0.mp4": ("sad", "train")}
    assert report.skipped == (Skipped("dev/dia0_utt0.mp4", "missing"),)


def test_a_clip_that_two_foreign_paths_could_mean_is_neithers(put):
    folder = put("dia0/utt0.mp4", "dia0/utt1.mp4")
    items = [
        talk("/mnt/x/train/dia0/utt0.mp4", "sad"),
        talk("/mnt/x/dev/dia0/utt0.mp4", "happy"),
        talk("D:\\corpus\\train\\dia0\\utt1.mp4", "angry"),
        talk("/mnt/x/utt1.mp4", "happy"),
    ]
    (folder / "train.json").write_text(json.dumps(items))
    rows, report = run("conversations", folder)
    assert rows == {"dia0/utt1.mp4": ("angry", "train")}
    assert {(s.name, s.reason) for s in report.skipped} == {
        ("/mnt/x/train/dia0/utt0.mp4", "could be the clip of another path"),
        ("/mnt/x/dev/dia0/utt0.mp4", "could be the clip of another path"),
        ("/mnt/x/utt1.mp4", "missing"),
    }


@pytest.mark.parametrize(
    ("stem", "split"),
    [
        ("latest_train", "train"),
        ("my_test", "test"),
        ("MERTest2025", "test"),
        ("interval", "train"),
        ("dev", "val"),
        ("mafw-ood", "ood"),
    ],
)
def test_a_split_is_a_word_of_the_name(stem, split):
    assert split_of(stem) == split


def test_dfew_numbers_that_two_clips_have_are_refused(put):
    folder = put("part_1/1.mp4")
    write_clip(folder / "part_2" / "00001.mp4", brightness=30)
    for split in ("train", "test"):
        table = folder / "EmoLabel_DataSplit" / f"{split}(single-labeled)" / "set_1.csv"
        table.parent.mkdir(parents=True)
        table.write_text("video_name,label\n1,1\n")
    with pytest.raises(ConfigError, match="several clips are named 1"):
        run("dfew", folder)


def test_names_as_windows_and_macos_write_them(put):
    composed, decomposed = (unicodedata.normalize(form, "zoë/é.mp4") for form in ("NFC", "NFD"))
    folder = put(decomposed, "anna/a=b.mp4")
    text = f"path,label\n{composed},sad\nanna\\a=b.mp4,happy\n"
    (folder / "labels.csv").write_text(text, encoding="utf-8")
    rows, report = run("folder", folder)
    assert rows == {decomposed: ("sad", "train"), "anna/a=b.mp4": ("happy", "train")}
    assert not report.skipped


def test_a_folder_behind_a_link_is_looked_into_once(put, tmp_path):
    folder = put("elsewhere/happy/1.mp4", "corpus/sad/1.mp4") / "corpus"
    (folder / "joy").symlink_to(tmp_path / "elsewhere" / "happy")
    (folder / "joy" / "again").symlink_to(folder)
    rows, _ = run("folder", folder)
    assert rows == {"joy/1.mp4": ("happy", "train"), "sad/1.mp4": ("sad", "train")}


def test_what_git_lfs_has_not_fetched_does_not_hide_the_sound_beside_it(tmp_path):
    write_clip(tmp_path / "AudioWAV" / "1001_DFA_ANG_XX.wav", video=False)
    for name in ("1001_DFA_ANG_XX", "1002_DFA_SAD_XX"):
        (tmp_path / "VideoFlash").mkdir(exist_ok=True)
        (tmp_path / "VideoFlash" / f"{name}.flv").write_bytes(POINTER)
    rows, report = run("crema-d", tmp_path)
    assert rows == {"AudioWAV/1001_DFA_ANG_XX.wav": ("angry", "test")}
    assert "skipped 2, a Git LFS pointer, not the clip; `git lfs pull` fetches it" in "\n".join(
        report.lines()
    )


def test_a_listed_clip_that_git_lfs_has_not_fetched_is_counted_once(put):
    folder = put("a.mp4")
    (folder / "b.mp4").write_bytes(POINTER)
    (folder / "labels.csv").write_text("path,label\na.mp4,sad\nb.mp4,happy\n")
    rows, report = run("folder", folder)
    assert set(rows) == {"a.mp4"}
    assert [(s.name, s.reason.split(",")[0]) for s in report.skipped] == [
        ("b.mp4", "a Git LFS pointer")
    ]


def test_a_file_name_that_is_no_utf8_is_named_and_left_out(put):
    folder = put("sad/1.mp4", "sad/2.mp4")
    os.rename(os.fsencode(folder / "sad" / "2.mp4"), os.fsencode(folder / "sad") + b"/\xe9.mp4")
    rows, report = run("folder", folder)
    assert set(rows) == {"sad/1.mp4"}
    said = "\n".join(report.lines())
    assert r"skipped 1, file name is not UTF-8, rename it: \udce9.mp4" in said
    said.encode()


def test_the_two_halves_of_what_macos_packs_are_one_clip(put):
    folder = put("sad/1.mp4")
    (folder / "sad" / "._1.mp4").write_bytes(b"Mac OS X")
    assert run("folder", folder)[0] == {"sad/1.mp4": ("sad", "train")}


def test_a_finder_takes_the_file_that_is_named_before_any_other_format(put, tmp_path):
    put("a.mp4")
    write_clip(tmp_path / "a.wav", video=False)
    finder = ClipFinder(tmp_path, Options())
    assert finder.find("a.wav") == tmp_path / "a.wav"
    assert finder.find("a") == finder.find("a.avi") == tmp_path / "a.mp4"
    assert finder.find("a.avi", other_suffix=False) is None


def test_ravdess_of_sound_alone_as_it_is_downloaded_twice_over(tmp_path):
    for number, name in enumerate(("03-01-05-02-02-01-02", "03-01-03-01-01-01-01")):
        pcm = write_clip(tmp_path / f"Actor_{number}" / f"{name}.wav", video=False)
        copy = tmp_path / "audio_speech_actors_01-24" / f"Actor_{number}" / f"{name}.wav"
        copy.parent.mkdir(parents=True)
        shutil.copy(pcm, copy)
    write_clip(tmp_path / "Actor_1" / "02-01-06-01-01-01-01.mp4", audio=False)
    rows, report = run("ravdess", tmp_path)
    assert rows == {
        "Actor_0/03-01-05-02-02-01-02.wav": ("angry", "test"),
        "Actor_1/03-01-03-01-01-01-01.wav": ("happy", "train"),
        "Actor_1/02-01-06-01-01-01-01.mp4": ("fear", "train"),
    }
    assert "skipped 2, an equal copy of another file" in "\n".join(report.lines())
    assert {name: len(kept) for name, kept in report.without.items()} == {"video": 2, "audio": 1}
