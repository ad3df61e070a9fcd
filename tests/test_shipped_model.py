"""The tiny model that ships: it is there, says so, and its card is that of the committed figures."""

import json
from pathlib import Path

from emostream import load_model
from emostream.checkpoint.resolve import TINY_FOLDER
from stream.commands.doctor import check_model
from stream.serve.model import ModelConfig
from training.recipe.model_card import model_card

RESULT = Path(__file__).parents[1] / "benchmarks" / "results" / "tiny.json"


def test_it_loads_without_a_warning(caplog):
    model, processor = load_model("tiny")
    assert caplog.messages == []
    assert model.config.name_or_path == "tiny"
    assert processor.tokenizer.decode(processor.tokenizer("happy")["input_ids"]) == "happy"
    assert ModelConfig().name == "tiny"
    assert check_model().outcome == "ok"


def test_its_card_is_that_of_the_committed_result():
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    assert (TINY_FOLDER / "README.md").read_text(encoding="utf-8") == model_card(result)
    shipped = result["splits"]["test"]["rows"][result["ships"]["row"]]
    assert shipped["label_named_rate"]["value"] == 0, (
        "a reasoning names the label before the answer"
    )
