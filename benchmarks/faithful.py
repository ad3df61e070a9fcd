"""What a shipped model's reasons follow from: the figures of `emostream-train faithful`, kept with their commit.

    emostream-train faithful --model small --clips 120 --out runs/faithful/test
    emostream-train faithful --model small --clips 60 --split ood --out runs/faithful/ood
    python benchmarks/faithful.py runs/faithful

The argument holds a folder for each test, of `test`, `ood`, `voices`, `voices_known` and `faces`. The last three are of
people, from the manifests of `make small`, those of `voices_known` heard for a minute before:

    emostream-train faithful --model small --manifest runs/small/manifests/test_voices.jsonl --clips 400 \
        --heard-s 60 --out runs/faithful/voices_known

Writes benchmarks/results/faithful_MODEL.json; run the commands at the commit that this is run at.
"""

import argparse
import json
from pathlib import Path

from provenance import write_result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, help="folder of TEST/faithful.json")
    parser.add_argument("--out", type=Path, help="result file")
    options = parser.parse_args()
    tests = {}
    for path in sorted(options.runs.glob("*/faithful.json")):
        tests[path.parent.name] = json.loads(path.read_text(encoding="utf-8"))
    models = {found["model"] for found in tests.values()}
    if len(models) != 1:
        parser.error(
            f"{options.runs}: wanted TEST/faithful.json of one model, found {len(tests)} of {len(models)}; run "
            "emostream-train faithful first, with a folder for each model"
        )
    write_result(f"faithful_{models.pop()}", {"splits": tests}, options.out)


if __name__ == "__main__":
    main()
