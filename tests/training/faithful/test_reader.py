"""The reader of reasons, and what follows from its readings."""

import numpy as np
import pytest

from training.faithful.reader import consistency, train_reader
from training.sft.compose import compose
from training.synth.clip import clip_row
from training.synth.script import write_script


@pytest.fixture(scope="module")
def reader():
    return train_reader(texts=600)


def test_it_reads_the_emotion_out_of_composed_texts_of_other_actors(reader):
    rows = [clip_row(write_script(1, "test", index)) for index in range(150)]
    rng = np.random.default_rng(1)
    read = reader.predict([compose(row.cues, rng) for row in rows])
    assert np.mean(read == [row.label for row in rows]) > 0.6  # chance is 0.14


def test_consistency_is_with_the_answer_and_accuracy_with_the_truth(reader):
    happy = "The cheeks are raised and the lip corners are pulled up. The pitch is varied."
    sad = "The mouth corners droop. The voice is soft, the speech is slow and the pauses are long."
    found = consistency(
        reader, [happy, sad, "", happy], ["happy", "happy", "sad", "sad"],
        ["happy", "sad", "sad", "happy"], [happy, sad, "", ""],
    )  # fmt: skip
    assert found["clips"] == 3
    assert found["accuracy"] == 1.0
    assert found["consistency"] == found["faithful"] == pytest.approx(1 / 3)
    assert found["composed"] == 1.0
    # From the next clip's reasons: sad for happy, happy for happy, happy for sad.
    assert found["shuffled"] == pytest.approx(1 / 3)


def test_nothing_is_read_out_of_no_reasons(reader):
    assert consistency(reader, [""], ["happy"], ["happy"], [""]) == {"clips": 0}
