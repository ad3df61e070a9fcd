"""Every corpus in a small folder of its published layout, with real media files."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from emostream.errors import ConfigError
from tests.training.claims.test_measure import voice
from tests.training.clips import write_clip
from training.corpora.candidates import Options, Skipped
from training.corpora.clips import ClipFinder
from training.corpora.emer import single_label, split_emotions
from training.corpora.index import READERS, index
from training.corpora.ravdess import FOLDS
from training.data.manifest import read_manifest


@pytest.fixture(scope="session")
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


def table(path: Path, header: str, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join((header, *lines)) + "\n", encoding="utf-8")


def run(kind, folder, **options):
    """Index, and give the rows as path name -> (label, split) beside the report."""
    out = folder / "m.jsonl"
    report = index(kind, folder, out, Options(**options))
    return {r.path.name: (r.label, r.split) for r in read_manifest(out)}, report


# DFEW


def dfew(folder: Path, fold: int, train: str, test: str) -> None:
    lists = folder / "EmoLabel_DataSplit"
    table(lists / "train(single-labeled)" / f"set_{fold}.csv", "video_name,label", *train.split())
    table(lists / "test(single-labeled)" / f"set_{fold}.csv", "video_name,label", *test.split())


def test_dfew(put):
    folder = put(*(f"part_{1 + n % 2}/{n}.mp4" for n in range(1, 8)))
    dfew(folder, 1, "1,1 2,2 3,3 4,4", "5,5 6,6 7,7")
    dfew(folder, 2, "7,7", "1,1")
    rows, report = run("dfew", folder)
    assert rows == {
        "1.mp4": ("happy", "train"),
        "2.mp4": ("sad", "train"),
        "3.mp4": ("neutral", "train"),
        "4.mp4": ("angry", "train"),
        "5.mp4": ("surprise", "test"),
        "6.mp4": ("disgust", "test"),
        "7.mp4": ("fear", "test"),
    }
    assert not report.skipped
    assert run("dfew", folder, fold=2)[0] == {
        "7.mp4": ("fear", "train"),
        "1.mp4": ("happy", "test"),
    }


def test_dfew_with_other_folders_and_leading_zeros(put):
    folder = put("Clip/original/part_1/1.mp4", "Clip/original/part_2/2.mp4")
    dfew(folder, 1, "00001,1", "00002,2")
    assert run("dfew", folder)[0] == {"1.mp4": ("happy", "train"), "2.mp4": ("sad", "test")}


def test_dfew_missing_and_unreadable_clips_are_named_and_counted(put):
    folder = put("part_1/1.mp4", "part_1/3.mp4")
    (folder / "part_1" / "2.mp4").write_bytes(b"not a movie" * 100)
    (folder / "part_1" / "4.mp4").write_bytes(b"")
    data = (folder / "part_1" / "3.mp4").read_bytes()
    (folder / "part_1" / "3.mp4").write_bytes(data[: len(data) // 2])  # an interrupted download
    dfew(folder, 1, "1,1 2,2 3,3", "4,4 9,5")
    rows, report = run("dfew", folder)
    assert set(rows) == {"1.mp4"}
    reasons = {s.name: s.reason for s in report.skipped}
    assert reasons["9"] == "missing"
    assert {name for name, reason in reasons.items() if reason.startswith("unreadable: ")} == {
        "2.mp4",
        "3.mp4",
        "4.mp4",
    }
    text = "\n".join(report.lines())
    assert "m.jsonl: 1 rows" in text
    assert "train: 1 (happy 1)" in text
    assert "skipped 3, unreadable: 2.mp4, 3.mp4, 4.mp4" in text
    assert "skipped 1, missing: 9" in text
    listed = [json.loads(line) for line in report.skipped_path.read_text().splitlines()]
    assert {entry["name"] for entry in listed} == set(reasons)


def test_dfew_errors_name_file_and_line(put):
    folder = put("part_1/1.mp4")
    dfew(folder, 1, "1,1 1,8", "1,1")
    with pytest.raises(ConfigError, match=r"set_1.csv:3: unknown label '8'; wanted one of 1, 2, 3"):
        run("dfew", folder)
    with pytest.raises(ConfigError, match=r"set_3.csv: cannot be read as CSV"):
        run("dfew", folder, fold=3)
    table(folder / "EmoLabel_DataSplit/train(single-labeled)/set_1.csv", "name,label", "1,1")
    with pytest.raises(ConfigError, match="column 'video_name' is missing; found name, label"):
        run("dfew", folder)


# MAFW


def mafw(folder: Path, train: str, test: str, fold: int = 1) -> None:
    lists = folder / "Train & Test Set" / "single" / "no_caption" / f"set_{fold}"
    table(lists / "train.txt", train)
    table(lists / "test.txt", test)


def test_mafw(put):
    words = [
        *("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"),
        *("contempt", "anxiety", "helplessness", "disappointment"),
    ]
    names = [f"{n:05d}.mp4" for n in range(1, 12)]
    folder = put(*(f"data/clips/{name}" for name in names))
    lines = [f"{name} {word}" for name, word in zip(names, words, strict=True)]
    mafw(folder, "\n".join(lines[:6]), "\n".join(lines[6:]))
    rows, _ = run("mafw", folder)
    assert [rows[name][0] for name in names] == [
        *("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"),
        *("contemptuous", "anxious", "helpless", "disappointed"),
    ]
    assert [rows[name][1] for name in names] == ["train"] * 6 + ["test"] * 5


def test_mafw_errors(put):
    folder = put("00001.mp4")
    mafw(folder, "00001.mp4 anger", "00001.mp4 boredom")
    with pytest.raises(ConfigError, match=r"test.txt:1: unknown label 'boredom'"):
        run("mafw", folder)
    mafw(folder, "00001.mp4", "")
    with pytest.raises(ConfigError, match=r"train.txt:1: wanted a file and a label, found '00001"):
        run("mafw", folder)
    with pytest.raises(ConfigError, match="cannot read MAFW's list: No such file"):
        run("mafw", folder, fold=5)
    lists = folder / "Train & Test Set" / "single" / "no_caption" / "set_1"
    (lists / "train.txt").write_bytes(b"00001.mp4 col\xe8re")
    with pytest.raises(ConfigError, match="this is not"):
        run("mafw", folder)


def test_a_clip_in_train_and_test_stays_in_test_only(put):
    folder = put("00001.mp4", "00002.mp4")
    mafw(folder, "00001.mp4 anger\n00002.mp4 fear\n00002.mp4 fear", "00001.mp4 sadness")
    rows, report = run("mafw", folder)
    assert rows == {"00001.mp4": ("sad", "test"), "00002.mp4": ("fear", "train")}
    assert set(report.skipped) == {
        Skipped("00001.mp4", "also in test with another label"),
        Skipped("00002.mp4", "listed twice"),
    }


# RAVDESS and CREMA-D: no lists; actors make the splits


def test_ravdess(put):
    labels = ["neutral", "calm", "happy", "sad", "angry", "fear", "disgust", "surprise"]
    folder = put(
        *(f"Actor_01/01-01-{e:02d}-01-01-01-01.mp4" for e in range(1, 9)),
        "Actor_02/01-01-05-02-02-01-02.mp4",
        "Actor_02/02-01-05-02-02-01-02.mp4",
        "Actor_02/01-02-05-02-02-01-02.mp4",
        "Actor_02/cover.mp4",
    )
    write_clip(folder / "Actor_02" / "03-01-05-02-02-01-02.wav", video=False)
    rows, report = run("ravdess", folder)
    assert [rows[f"01-01-{e:02d}-01-01-01-01.mp4"] for e in range(1, 9)] == [
        (label, "train") for label in labels
    ]
    assert rows["01-01-05-02-02-01-02.mp4"] == ("angry", "test")  # actor 2 is of the first fold
    assert {(s.name, s.reason) for s in report.skipped} == {
        ("02-01-05-02-02-01-02.mp4", "video only of a clip that is here with both"),
        ("03-01-05-02-02-01-02.wav", "audio only of a clip that is here with both"),
        ("01-02-05-02-02-01-02.mp4", "song"),
        ("cover.mp4", "not named as RAVDESS names its files"),
    }
    row = next(r for r in read_manifest(folder / "m.jsonl") if r.split == "test")
    assert (row.actor, row.meta) == (
        "02",
        {"intensity": "strong", "statement": 2, "repetition": 1},
    )
    assert row.end_s == pytest.approx(1.0, abs=0.1)
    assert report.actors == {"train": 1, "test": 1}


def test_ravdess_folds_are_disjoint_and_cover_all_actors():
    assert sorted(actor for fold in FOLDS for actor in fold) == list(range(1, 25))


def test_labels_can_be_renamed_and_filtered(put):
    folder = put("Actor_01/01-01-02-01-01-01-01.mp4", "Actor_01/01-01-05-01-01-01-01.mp4")
    wanted = ("neutral", "Anger")
    rows, report = run("ravdess", folder, labels=wanted, split="test")
    assert rows == {"01-01-05-01-01-01-01.mp4": ("Anger", "test")}
    assert [s.reason for s in report.skipped] == ["label calm not asked for"]
    rows, report = run("ravdess", folder, labels=wanted, rename={"calm": "neutral"})
    assert rows["01-01-02-01-01-01-01.mp4"] == ("neutral", "train")
    assert not report.skipped
    assert not report.skipped_path.exists()  # the earlier account is not left behind


def test_an_unknown_emotion_code_is_an_error(put):
    with pytest.raises(ConfigError, match=r"01-01-09-01-01-01-01.mp4: unknown label '09'"):
        run("ravdess", put("Actor_01/01-01-09-01-01-01-01.mp4"))


def test_crema_d(put, tmp_path):
    for name in ("1001_DFA_ANG_XX", "1002_IEO_HAP_LO", "1006_IEO_SAD_HI"):
        write_clip(tmp_path / "VideoFlash" / f"{name}.flv")
        write_clip(tmp_path / "AudioWAV" / f"{name}.wav", video=False)
        write_clip(tmp_path / "AudioMP3" / f"{name}.mp3", video=False)
    for word in ("DIS", "FEA", "NEU"):
        write_clip(tmp_path / "VideoFlash" / f"1003_IWW_{word}_MD.flv")
    rows, _ = run("crema-d", tmp_path)
    assert rows == {
        "1001_DFA_ANG_XX.flv": ("angry", "test"),
        "1006_IEO_SAD_HI.flv": ("sad", "test"),
        "1002_IEO_HAP_LO.flv": ("happy", "train"),
        "1003_IWW_DIS_MD.flv": ("disgust", "train"),
        "1003_IWW_FEA_MD.flv": ("fear", "train"),
        "1003_IWW_NEU_MD.flv": ("neutral", "train"),
    }
    rows, _ = run("crema-d", tmp_path, fold=2)
    assert {split for name, (_, split) in rows.items() if name.startswith("1002")} == {"test"}


def test_crema_d_of_sound_alone(tmp_path):
    write_clip(tmp_path / "AudioWAV" / "1001_DFA_ANG_XX.wav", video=False)
    rows, report = run("crema-d", tmp_path)
    assert rows == {"1001_DFA_ANG_XX.wav": ("angry", "test")}
    assert report.without == {"video": ("1001_DFA_ANG_XX.wav",)}
    assert "kept 1 without video: 1001_DFA_ANG_XX.wav" in "\n".join(report.lines())


# EMER, MER2025


def test_emer_v1(put):
    folder = put("video/samplenew3_1.mp4", "video/samplenew3_2.mp4")
    with (folder / "emer.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["names", "emotions", "subtitles", "reasons"])
        writer.writerow(
            ["samplenew3_1", "['worried', 'anxious']", "好, ok", "He frowns.\nHe sighs."]
        )
        writer.writerow(["samplenew3_2", "happy, angry", "", "Mixed."])
        writer.writerow(["samplenew3_3", "sad", "", "Gone."])
    report = index("emer", folder, folder / "m.jsonl")
    first, second = read_manifest(folder / "m.jsonl")
    assert (first.label, first.answer) == ("anxious", "worried, anxious")
    assert first.reason == "He frowns.\nHe sighs."
    assert first.meta == {"subtitle": "好, ok"}
    assert (second.label, second.answer) == (
        None,
        "happy, angry",
    )  # which of them is not ours to say
    assert report.skipped == (Skipped("samplenew3_3", "missing"),)


def test_emer_v2(put):
    folder = put("clips/a.mp4")
    table(folder / "EMER-v2.csv", "name,chinese,english", 'a,他笑了,"He smiles, broadly."')
    index("emer", folder, folder / "m.jsonl")
    (row,) = read_manifest(folder / "m.jsonl")
    assert (row.label, row.answer, row.reason) == (None, None, "He smiles, broadly.")
    assert row.meta == {"chinese": "他笑了"}


def test_mer2025_joins_its_tables(put):
    folder = put("video/sample_1.mp4", "video/sample_2.mp4")
    write_clip(folder / "audio" / "sample_1.wav", video=False)
    table(
        folder / "track2_openset.csv", "name,openset", 'sample_1,"[sad, disappointed]"', "sample_2,"
    )
    table(folder / "track3_reason.csv", "name,reason", "sample_1,Her voice is low.")
    table(folder / "unrelated.csv", "a,b", "1,2")
    report = index("mer2025", folder, folder / "m.jsonl")
    (row,) = read_manifest(folder / "m.jsonl")
    assert (row.path.name, row.answer, row.reason) == (
        "sample_1.mp4",
        "sad, disappointed",
        "Her voice is low.",
    )
    assert report.skipped == (Skipped("sample_2", "neither emotion nor reason"),)


def test_emer_without_a_table(put):
    with pytest.raises(ConfigError, match="no table found; wanted a CSV with the columns names"):
        run("emer", put("a.mp4"))


def test_open_vocabulary():
    assert split_emotions("['worried', \"sad\", 'sad']") == ["worried", "sad"]
    assert split_emotions("[worried, sad]") == ["worried", "sad"]
    assert split_emotions("高兴、难过") == ["高兴", "难过"]
    assert split_emotions("") == []
    assert single_label(["joyful", "happiness", "relieved"], ("happy", "sad")) == "happy"
    assert single_label(["happy", "sad"], ("happy", "sad")) is None


# Conversations


def talk(video, *replies, **extra):
    turns = [{"from": "human", "value": "<video>\n<audio>\nWhich emotion?"}]
    turns += [{"from": "gpt", "value": reply} for reply in replies]
    return {"video": video, "conversations": turns, **extra}


def test_conversations(put, tmp_path):
    folder = put("MAFW/clips/00001.mp4", "DFEW/part_1/1.mp4", "DFEW/part_2/2.mp4", "x/3.mp4")
    absolute = str(tmp_path / "x" / "3.mp4")
    items = [
        talk("/mnt/data/other/MAFW/clips/00001.mp4", "Sad"),
        talk("DFEW/part_1/1.mp4", "<think>The brows rise.</think>\n<answer>surprised</answer>"),
        talk(absolute, "bored"),
        talk("2.mp4", "A man in a grey coat looks up and then begins to smile."),
        talk("/mnt/gone.mp4", "sad"),
        talk("1.mp4"),
        {"image": "a.png", "conversations": []},
        talk("DFEW/part_2/2.mp4", "<think>cut off"),
    ]
    (folder / "train.json").write_text(json.dumps(items), encoding="utf-8")
    report = index("conversations", folder, folder / "m.jsonl")
    rows = {r.path.name: r for r in read_manifest(folder / "m.jsonl")}
    assert {name: (r.label, r.answer, r.reason) for name, r in rows.items()} == {
        "00001.mp4": ("sad", "Sad", None),
        "1.mp4": ("surprise", "surprised", "The brows rise."),
        "3.mp4": (None, "bored", None),
        "2.mp4": (None, None, "A man in a grey coat looks up and then begins to smile."),
    }
    assert {s.reason for s in report.skipped} == {
        "missing",
        "no reply",
        "no video",
        "a reply without an answer",
    }


def test_one_conversation_file_and_its_split(put):
    folder = put("a.mp4", "b.mp4")
    (folder / "my_test.json").write_text(json.dumps([talk("a.mp4", "sad")]))
    (folder / "other.json").write_text(json.dumps([talk("b.mp4", "sad")]))
    index("conversations", folder / "my_test.json", folder / "m.jsonl")
    assert [(r.path.name, r.split) for r in read_manifest(folder / "m.jsonl")] == [
        ("a.mp4", "test")
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be read as JSON"),
        ("{}", "wanted a list of conversations, found dict"),
        ('["x"]', r'x.json\[0\]: wanted an object with "video" and "conversations"'),
    ],
)
def test_wrong_conversations(put, text, said):
    folder = put("a.mp4")
    (folder / "x.json").write_text(text)
    with pytest.raises(ConfigError, match=said):
        run("conversations", folder)


# A folder of one's own


def test_folder_with_a_table(put):
    folder = put("a.mp4", "sub/b.mp4", "sub/c.mp4")
    table(
        folder / "labels.csv",
        "path,label,split,actor,start_s,end_s,reason",
        "a.mp4,Joy,test,ann,0.1,0.9,",
        "sub/b.mp4,angry,train,bob,,,He frowns.",
        "c,fearful,train,ann,,,",
    )
    rows, report = run("folder", folder)
    assert rows == {
        "a.mp4": ("happy", "test"),
        "b.mp4": ("angry", "train"),
        "c.mp4": ("fear", "train"),
    }
    row = next(r for r in read_manifest(folder / "m.jsonl") if r.path.name == "a.mp4")
    assert (row.start_s, row.end_s, row.actor) == (0.1, 0.9, "ann")
    assert report.shared_actors == ("ann",)
    assert "warning: actors in more than one split: ann" in "\n".join(report.lines())


def test_folder_with_labels_of_its_own(put):
    folder = put("a.mp4", "b.mp4")
    table(folder / "labels.csv", "file,label", "a.mp4,frustrated", "b.mp4,sad")
    with pytest.raises(ConfigError, match=r"labels.csv:2: unknown label 'frustrated'.*--rename"):
        run("folder", folder)
    assert run("folder", folder, labels=("frustrated", "sad"))[0] == {
        "a.mp4": ("frustrated", "train"),
        "b.mp4": ("sad", "train"),
    }
    assert run("folder", folder, rename={"frustrated": "angry"})[0]["a.mp4"] == ("angry", "train")
    rows, report = run("folder", folder, labels=("frustrated",))
    assert set(rows) == {"a.mp4"}
    assert [s.reason for s in report.skipped] == ["label sad not asked for"]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (("path", "a.mp4"), "the column 'label' is missing; found path"),
        (("what,label", "a.mp4,sad"), "no column of clips; wanted one of path, file, video, name"),
        (("path,label,start_s", "a.mp4,sad,soon"), r"labels.csv:2: start_s is 'soon'; wanted sec"),
        (("path,label", "a.mp4"), r"labels.csv:2: no value for 'label': the line has 1 of 2"),
    ],
)
def test_wrong_tables(put, lines, said):
    folder = put("a.mp4")
    table(folder / "labels.csv", *lines)
    with pytest.raises(ConfigError, match=said):
        run("folder", folder)


def test_a_stretch_beyond_the_end_is_skipped(put):
    folder = put("a.mp4")
    table(folder / "labels.csv", "path,label,start_s", "a.mp4,sad,0", "a.mp4,sad,60")
    _, report = run("folder", folder)
    assert report.rows == 1
    assert "unreadable: starts at 60.0 s" in report.skipped[0].reason


def test_which_table_must_be_clear(put):
    folder = put("a.mp4")
    with pytest.raises(ConfigError, match="wanted one CSV of labels, found none"):
        run("folder", folder)
    table(folder / "x.csv", "path,label", "a.mp4,sad")
    table(folder / "y.csv", "path,label", "a.mp4,sad")
    with pytest.raises(ConfigError, match=r"found x.csv, y.csv; name it as DIR"):
        run("folder", folder)
    assert index("folder", folder / "y.csv", folder / "m.jsonl").rows == 1


# All of them


def test_an_empty_corpus_is_an_error_that_says_why(put):
    folder = put("00001.mp4")
    (folder / "00001.mp4").write_bytes(b"junk")
    mafw(folder, "00001.mp4 anger", "00002.mp4 fear")
    with pytest.raises(ConfigError, match=r"no clip of mafw can be used; 1 missing, 1 unreadable"):
        run("mafw", folder)
    with pytest.raises(ConfigError, match="no clip of ravdess can be used; none is listed"):
        run("ravdess", (folder / "empty").absolute().parent / "Train & Test Set")


def test_unknown_kinds_and_folders(tmp_path):
    with pytest.raises(ConfigError, match="unknown kind 'iemocap'; wanted one of dfew, mafw"):
        index("iemocap", tmp_path, tmp_path / "m.jsonl")
    for kind in READERS:
        with pytest.raises(ConfigError, match="no such folder"):
            index(kind, tmp_path / "absent", tmp_path / "m.jsonl")
    with pytest.raises(ConfigError, match="wanted a fold from 1 to 5, found 6"):
        Options(fold=6)


def test_two_copies_of_a_clip_must_be_told_apart(put):
    folder = put("Clip/original/part_1/1.mp4")
    write_clip(folder / "Clip/small/part_1/1.mp4", brightness=30)
    dfew(folder, 1, "1,1", "1,1")
    with pytest.raises(ConfigError, match=r"several clips are named 1.*name the folder .* --clips"):
        run("dfew", folder)
    assert run("dfew", folder, clips="Clip/small")[1].rows == 1


def test_a_finder_knows_names_with_and_without_suffix(put, tmp_path):
    put("a.b.mp4", "deep/c.MP4")
    finder = ClipFinder(tmp_path, Options())
    assert finder.find("a.b.mp4") == finder.find("a.b") == tmp_path / "a.b.mp4"
    assert finder.find("C") == tmp_path / "deep" / "c.MP4"
    assert finder.find("a") is None


def test_progress_counts_every_clip(put):
    folder = put(*(f"Actor_01/01-01-0{e}-01-01-01-01.mp4" for e in range(1, 6)))
    seen = []
    index("ravdess", folder, folder / "m.jsonl", on_progress=lambda *at: seen.append(at))
    assert seen == [("clips opened", n, 5) for n in range(1, 6)]


def test_voices_can_be_measured_while_indexing(tmp_path):
    for statement, f0_hz in enumerate((120.0, 125.0, 240.0), 1):
        name = f"Actor_01/01-01-{(1, 1, 5)[statement - 1]:02d}-01-{statement:02d}-01-01.mp4"
        write_clip(tmp_path / name, pcm=voice(f0_hz, seconds=1.5))
    write_clip(tmp_path / "Actor_01" / "01-01-05-02-02-01-01.mp4", pcm=np.zeros(16_000))
    write_clip(tmp_path / "Actor_03" / "01-01-05-02-02-01-03.mp4")
    report = index("ravdess", tmp_path, tmp_path / "m.jsonl", measure_voice=True)
    cues = [r.cues and r.cues.voice for r in read_manifest(tmp_path / "m.jsonl")]
    assert cues[3:] == [None, None]
    assert cues[0]["pitch"] < 0.5 < cues[2]["pitch"]
    assert "voice cues measured for 3; not for 1 without a known" in "\n".join(report.lines())
    assert report.measured.without_voice == 1
