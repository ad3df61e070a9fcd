"""The models that ship: they are there, say so, and their cards are those of the committed figures."""

import inspect
import json
import tomllib
from pathlib import Path

import pytest

from emostream import listen, load_model, recognize
from emostream.checkpoint.shipped import DEFAULT_MODEL, LICENCES, SHIPPED, licence_notice
from stream.commands.cli import _parser
from stream.commands.doctor import check_model
from stream.serve.model import ModelConfig
from training.recipe.model_card import model_card
from training.recipe.people_card import people_card

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
RESULT = RESULTS / "tiny.json"


def test_it_loads_without_a_warning(caplog):
    model, processor = load_model("tiny")
    assert caplog.messages == []
    assert model.config.name_or_path == "tiny"
    assert processor.tokenizer.decode(processor.tokenizer("happy")["input_ids"]) == "happy"
    assert check_model().outcome == "ok"


def test_its_card_is_that_of_the_committed_result():
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    assert (SHIPPED["tiny"] / "README.md").read_text(encoding="utf-8") == model_card(result)
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


def test_the_model_of_people_is_the_default_of_all_that_starts_one():
    assert DEFAULT_MODEL == "small"
    assert ModelConfig().name == DEFAULT_MODEL
    for command in ("run", "demo", "infer a.mp4 --out b.jsonl", "annotate a.mp4 --out b"):
        assert _parser().parse_args(command.split()).model == DEFAULT_MODEL
    for function in (listen, recognize):
        assert inspect.signature(function).parameters["model"].default == DEFAULT_MODEL


@pytest.mark.parametrize("name", SHIPPED)
def test_whoever_starts_a_model_that_ships_is_told_its_licence(name, tmp_path, monkeypatch):
    card = (SHIPPED[name] / "README.md").read_text(encoding="utf-8")
    spdx = LICENCES[name].replace(" ", "-")
    assert card.startswith(f"---\nlicense: {spdx.lower()}\n")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert spdx in project["license"].split(" AND ")
    assert LICENCES[name] in (ROOT / "NOTICE").read_text(encoding="utf-8")
    for model in (name, str(SHIPPED[name])):
        notice = licence_notice(model)
        assert notice.startswith(f"model {name}: ")
        assert LICENCES[name] in notice
        assert len(notice) < 80, "a line of a terminal"
    # A folder of that name is the user's own, and is what is loaded.
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    assert licence_notice(name) is None
    assert licence_notice("owner/name") is None
