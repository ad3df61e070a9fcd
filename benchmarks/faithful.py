"""What the shipped model's reasons follow from: the figures of `emostream-train faithful`, kept with their commit.

    emostream-train faithful --model tiny --clips 120 --out runs/faithful/test
    emostream-train faithful --model tiny --clips 60 --split ood --out runs/faithful/ood
    python benchmarks/faithful.py runs/faithful

The argument holds a folder for each split; run the commands at the commit that this is run at.
"""

import argparse
import json
from pathlib import Path

from provenance import write_result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, help="folder of SPLIT/faithful.json")
    parser.add_argument("--out", type=Path, help="result file")
    options = parser.parse_args()
    splits = {}
    for path in sorted(options.runs.glob("*/faithful.json")):
        splits[path.parent.name] = json.loads(path.read_text(encoding="utf-8"))
    if not splits:
        parser.error(
            f"{options.runs}: holds no SPLIT/faithful.json; run emostream-train faithful first"
        )
    write_result("faithful", {"splits": splits}, options.out)


if __name__ == "__main__":
    main()
