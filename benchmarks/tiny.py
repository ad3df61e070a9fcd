"""Recognition figures of the tiny model, and the card that ships with it.

python benchmarks/tiny.py runs/tiny/eval --ships grpo-seed0
python benchmarks/tables.py

The first argument is laid out as `emostream-train table` wants it; `recipe.json` beside it, which `make tiny` writes,
says what each step took. Writes benchmarks/results/tiny.json, and README.md into the folder of the model.
"""

import argparse
import json
from pathlib import Path

from provenance import write_result

from emostream import load_model
from emostream.checkpoint.resolve import SHIPPED
from training.evaluation.table import compare, read_fused, read_runs
from training.recipe.model_card import model_card

CARD = "README.md"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, help="folder of evaluations")
    parser.add_argument("--ships", required=True, metavar="ROW-seedK", help="which of them ships")
    parser.add_argument("--model", type=Path, default=SHIPPED["tiny"], help="folder of the model")
    parser.add_argument("--out", type=Path, help="result file")
    options = parser.parse_args()
    runs = read_runs(options.runs)
    recipe = options.runs.parent / "recipe.json"
    row, _, seed = options.ships.rpartition("-seed")
    row = row.replace("-", "_")
    if (row, seed) not in {(run.row, str(run.seed)) for run in runs}:
        parser.error(f"--ships {options.ships}: {options.runs} holds no such evaluation")
    model, _ = load_model(options.model)
    measured = {
        "model": {
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "bytes": sum(
                path.stat().st_size
                for path in options.model.rglob("*")
                if path.is_file() and path.name != CARD
            ),
        },
        "ships": {"row": row, "seed": int(seed)},
        "recipe": json.loads(recipe.read_text(encoding="utf-8")) if recipe.is_file() else [],
        **compare(runs, read_fused(options.runs)),
    }
    path = write_result("tiny", measured, options.out)
    card = model_card(json.loads(path.read_text(encoding="utf-8")))
    (options.model / CARD).write_text(card, encoding="utf-8")


if __name__ == "__main__":
    main()
