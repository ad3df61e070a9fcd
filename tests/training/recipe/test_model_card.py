from training.evaluation.table import markdown
from training.recipe.model_card import model_card


def number(value):
    return {"value": value, "interval": [value - 0.01, value + 0.01], "by_seed": [value]}


def test_a_card_says_what_the_result_says():
    names = (
        *("war", "uar", "label_first_uar", "format_rate", "claim_support_rate", "claims_a_clip"),
        *("cue_recall", "agreement", "fusion_gain"),
    )
    result = {
        "model": {"parameters": 3_300_000, "bytes": 7_100_000},
        "ships": {"row": "grpo", "seed": 1},
        "recipe": [{"step": "GRPO", "what": "300 steps", "minutes": 20.4}],
        "splits": {
            "test": {
                "clips": 100,
                "fused": None,
                "rows": {"grpo": {"seeds": [1], **{name: number(0.625) for name in names}}},
                "differences": [],
            }
        },
        "provenance": {
            "commit": "0123456789abcdef",
            "date": "2026-11-25T18:00:00+00:00",
            "machine": {"cores": 2, "cpu": "A CPU"},
        },
    }
    card = model_card(result)
    assert card.startswith("---\nlicense: apache-2.0\n")
    for said in (
        "3.3 million parameters, 7.1 MB",
        "trained on rendered actors only",
        "Article 5(1)(f)",
        "| GRPO | 300 steps | 20 |",
        "The weights are those of “GRPO, grounded”, seed 1.",
        "62.5 (61.5 to 63.5)",
        "On 2 cores (A CPU)",
        "`0123456789`, 2026-11-25. Apache-2.0.",
    ):
        assert said in card
    assert markdown(result) in card
    assert "| minutes |" not in model_card({**result, "recipe": []})
