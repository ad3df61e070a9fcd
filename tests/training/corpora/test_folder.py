"""A folder of one's own: a folder for each label, and tables as spreadsheets write them."""

import codecs

import pytest

from emostream.errors import ConfigError
from tests.training.clips import write_clip
from training.cli import main
from training.corpora.candidates import Options
from training.corpora.index import index
from training.data.manifest import read_manifest


@pytest.fixture
def folder(tmp_path):
    for name in ("a.mp4", "b.mp4"):
        write_clip(tmp_path / name)
    return tmp_path


def run(folder, **options):
    """Index, and give the rows beside the report."""
    report = index("folder", folder, folder / "m.jsonl", Options(**options))
    return read_manifest(folder / "m.jsonl"), report


def test_a_folder_for_each_label(tmp_path):
    for name in ("happy/1.mp4", "sad/1.mp4", "test/Anger/2.mp4", "spare/3.mp4"):
        write_clip(tmp_path / name)
    write_clip(tmp_path / "sad" / "1.wav", video=False)  # the sound of 1.mp4
    write_clip(tmp_path / "val" / "fear" / "4.wav", video=False)
    rows, report = run(tmp_path)
    assert {r.path.relative_to(tmp_path).as_posix(): (r.label, r.split) for r in rows} == {
        "happy/1.mp4": ("happy", "train"),
        "sad/1.mp4": ("sad", "train"),
        "test/Anger/2.mp4": ("angry", "test"),
        "val/fear/4.wav": ("fear", "val"),
    }
    assert [(s.name, s.reason) for s in report.skipped] == [
        ("3.mp4", "in a folder that names no label, spare")
    ]
    rows, _ = run(tmp_path, rename={"spare": "neutral"}, split="ood")
    assert [r.split for r in rows] == ["ood"] * 5


def test_folders_that_name_no_label_are_an_error_that_says_what_is_wanted(tmp_path):
    write_clip(tmp_path / "bored" / "1.mp4")
    with pytest.raises(ConfigError, match=r"nor do folders name labels: found bored, wanted happy"):
        run(tmp_path)
    assert run(tmp_path, labels=("bored",))[0][0].label == "bored"


@pytest.mark.parametrize(
    ("mark", "start"),
    [(";", ""), ("\t", ""), ("|", ""), (",", ""), (";", "sep=;\r\n")],
    ids=["semicolons", "tabs", "bars", "commas", "said"],
)
@pytest.mark.parametrize("bom", [codecs.BOM_UTF8, codecs.BOM_UTF16_LE, b""], ids=["8", "16", "no"])
def test_tables_as_spreadsheets_write_them(folder, mark, start, bom):
    time = "0,5" if mark != "," else "0.5"
    lines = (
        ("PATH", "Label", "START_S", "Reason"),
        ("a.mp4", "Freude", time, "Sie lächelt."),
        ("b.mp4", "sad", "", ""),
    )
    text = start + "".join(mark.join(line) + "\r\n" for line in lines)
    encoding = "utf-16-le" if bom == codecs.BOM_UTF16_LE else "utf-8"
    (folder / "labels.csv").write_bytes(bom + text.encode(encoding))
    first, second = run(folder, rename={"Freude": "happy"})[0]
    assert (first.label, first.start_s, first.reason) == ("happy", 0.5, "Sie lächelt.")
    assert (second.label, second.start_s) == ("sad", 0.0)


def test_a_table_of_speech_with_identifiers(tmp_path):
    write_clip(tmp_path / "samples" / "SB0_anger_1.wav", video=False)
    (tmp_path / "data.tsv").write_text(
        "file_id\temotion\tspeaker_id\tage\nSB0_anger_1.wav\tanger\tSB0\t31\n"
    )
    [row] = run(tmp_path)[0]
    assert (row.path.name, row.label, row.actor) == ("SB0_anger_1.wav", "angry", "SB0")


def test_another_encoding_is_refused_in_a_line_and_read_where_it_is_named(folder, capsys):
    (folder / "labels.csv").write_bytes("path,label,reason\na.mp4,sad,他笑了\n".encode("gbk"))
    call = ["corpus", "index", "folder", str(folder), "--out", str(folder / "m.jsonl")]
    assert main(call) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "wanted text in UTF-8, this is not" in said
    assert "--encoding" in said
    assert main([*call, "--encoding", "gbk"]) == 0
    assert read_manifest(folder / "m.jsonl")[0].reason == "他笑了"
    with pytest.raises(ConfigError, match="there is no encoding 'klingon'"):
        Options(encoding="klingon")


def test_conversations_in_another_encoding(folder):
    text = '[{"video": "a.mp4", "conversations": [{"from": "gpt", "value": "tr\xe4ge"}]}]'
    (folder / "x.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"x\.json: cannot be read: wanted text in UTF-8"):
        index("conversations", folder, folder / "m.jsonl")
    index("conversations", folder, folder / "m.jsonl", Options(encoding="latin-1"))
    assert read_manifest(folder / "m.jsonl")[0].answer == "träge"


def test_a_row_that_ends_behind_its_clip_is_cut_there(folder):
    (folder / "labels.csv").write_text(
        "path,label,start_s,end_s\na.mp4,sad,0.5,99\nb.mp4,sad,5,99\n"
    )
    [row], report = run(folder)
    assert row.end_s == pytest.approx(1.0, abs=0.1)
    said = "\n".join(report.lines())
    assert "cut 1 rows at the end of their clips" in said
    assert "labels.csv:2: end_s is 99; the clip a.mp4 ends at 1.0" in said
    assert report.skipped[0].reason.startswith("unreadable: starts at 5.0 s, the clip ends at 1.0")
    assert report.skipped[0].reason.endswith("labels.csv:3)")


def test_a_row_that_ends_before_it_starts_is_named_with_file_and_line(folder):
    (folder / "labels.csv").write_text("path,label,start_s,end_s\na.mp4,sad,0.5,0.2\n")
    with pytest.raises(
        ConfigError, match=r"labels\.csv:2: row: end_s is 0\.2; wanted a time after"
    ):
        run(folder)
