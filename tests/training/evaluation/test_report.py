import numpy as np
import pytest
from PIL import Image

from tests.training.evaluation.test_results import random_result
from tests.training.evaluation.test_results import result as summary
from training.evaluation.report import markdown, write_report
from training.evaluation.results import Prediction


@pytest.fixture(scope="module")
def result():
    return {**random_result(), "model": "tiny", "manifest": "test.jsonl"}


def test_the_page_says_what_the_result_says(result):
    text = "\n".join(markdown(result))
    assert text.startswith("# tiny on test.jsonl\n")
    assert f"| UAR | {100 * result['uar']:.1f} % |" in text
    assert f"| cue recall | {100 * result['cue_recall']:.1f} % |" in text
    assert "| fear | – | 0 |" in text  # no clips: no recall
    assert "video with another clip's audio" in text
    assert "Fusion gains +" in text


def test_plots_are_pictures_with_something_in_them(result, tmp_path):
    page = write_report(result, tmp_path / "deep")
    for name in ("confusion.png", "recall.png", "reliability.png"):
        assert f"({name})" in page.read_text(encoding="utf-8")
        with Image.open(page.parent / name) as image:
            assert min(image.size) > 300
            assert np.asarray(image.convert("L")).std() > 10


def test_a_result_with_labels_alone_has_a_page_too(tmp_path):
    one = Prediction(index=0, path="", label="sad", scores={"audio": {"happy": 0.2, "sad": 0.8}})
    skipped = Prediction(index=1, path="b", label="sad", skipped="unreadable: gone")
    found = summary([one, skipped], ("happy", "sad"), {})
    text = write_report(found, tmp_path).read_text(encoding="utf-8")
    assert "answers: label first. Skipped: 1 unreadable." in text
    assert "| format | – |" in text
    assert "Modalities" not in text
    assert not (tmp_path / "reliability.png").exists()
