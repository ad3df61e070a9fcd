"""The models that ship: they are there, say so, and their cards are those of the committed figures."""

import json
from pathlib import Path

from emostream import load_model
from emostream.checkpoint.resolve import SHIPPED, TINY_FOLDER
from stream.commands.doctor import check_model
from stream.serve.model import ModelConfig
from training.recipe.model_card import model_card
from training.recipe.people_card import people_card

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
RESULT = RESULTS / "tiny.json"


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


def test_the_small_model_is_there_with_its_card_and_licence(caplog):
    model, processor = load_model("small")
    assert caplog.messages == []
    assert model.config.frame_crop == "face"
    assert model.model.audio_tower.audio_tower["baseline"].std.ne(1).any()
    assert processor.tokenizer.decode(processor.tokenizer("happy")["input_ids"]) == "happy"
    size = sum(path.stat().st_size for path in SHIPPED["small"].rglob("*") if path.is_file())
    assert size < 24e6
    card = (SHIPPED["small"] / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlicense: cc-by-nc-sa-4.0\n")
    assert card == people_card(json.loads((RESULTS / "small.json").read_text(encoding="utf-8")))
