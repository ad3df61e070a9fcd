"""`make small CORPORA=…`: a model that has seen and heard people, from the corpora to its towers.

CORPORA/faces/      FER+ and web faces, CORPORA/audio.csv with CORPORA/audio/: see docs/corpora.md
OUT/manifests/      what is in them, as `emostream-train corpus index` writes it
OUT/towers/         the trained towers, each in a folder of its own repository's layout
OUT/runs/           logs, scores on validation and test people, states that an interrupted run goes on from

A stage whose result is there is not run again; an interrupted one continues where it was.
"""

import argparse
import json
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emostream import load_model
from emostream.errors import ConfigError, EmostreamError
from emostream.labels import DEFAULT_LABELS
from emostream.model.presets import from_preset
from training.corpora.candidates import Options
from training.corpora.index import index
from training.data.manifest import Row, read_manifest
from training.recipe.people_faces import judge, read_faces, train_faces
from training.recipe.people_voices import begin_voices, judge_voices, train_voices
from training.recipe.tower_files import write_tower
from training.recipe.voice_data import read_voices

logger = logging.getLogger(__name__)

#: Steps, batch and highest learning rate of each tower.
FACES = (2600, 128, 2e-3)
#: Steps and highest learning rate.
VOICES = (2000, 5e-4)

#: Speech of a person before the utterance that is judged.
HEARD_S = (0.0, 5.0, 30.0, 120.0)
TOWERS = ("vision", "audio")

#: Manifest -> kind of corpus and where it lies below the corpora's folder.
CORPORA = {
    "ferplus": ("ferplus", "faces"),
    "webfaces": ("webfaces", "faces"),
    "voices": ("folder", "audio.csv"),
}


class Recipe:
    """The stages, by the folder that they fill.

    Args:
        corpora: Folder of real people.
        out: Where everything goes.
        part: Of the steps to train, for a trial.

    Raises:
        ConfigError: The folder is missing or holds no such corpora.
    """

    def __init__(self, corpora: Path, out: Path, part: float = 1.0):
        missing = [place for _, place in CORPORA.values() if not (corpora / place).exists()]
        if missing:
            raise ConfigError(
                f"small: {corpora} holds no {missing[0]}; wanted a folder with faces/ and audio.csv. Name it with "
                "--corpora (make small CORPORA=DIR); docs/corpora.md says what belongs there"
            )
        self.corpora, self.out, self.part = corpora, out, part

    def run(self, towers: Sequence[str]) -> None:
        """Everything that is not there yet."""
        self.index()
        for name in towers:
            {"vision": self.vision, "audio": self.audio}[name]()

    def index(self) -> None:
        """Manifests of all corpora; duplicates are dropped."""
        for name, (kind, place) in CORPORA.items():
            if not self.manifest(name).is_file():
                options = Options(labels=DEFAULT_LABELS)
                report = index(kind, self.corpora / place, self.manifest(name), options)
                logger.info("%s", "\n".join(report.lines()))

    def vision(self) -> None:
        """The vision tower, on faces."""
        steps, batch, rate = FACES
        with self._stage("vision") as folder:
            if folder is None:
                return
            model, processor = from_preset("small")
            side = model.config.vision_config.image_size
            rows = [row for name in ("ferplus", "webfaces") for row in self.rows(name)]
            faces = {
                split: read_faces([row for row in rows if row.split == split], side)
                for split in ("train", "validation", "test")
            }
            probe = train_faces(
                model.model,
                faces["train"],
                faces["validation"],
                steps=max(1, round(steps * self.part)),
                batch_size=batch,
                learning_rate=rate,
                seed=0,
                folder=self.out / "runs",
                say=logger.info,
            )
            self._note(
                "vision",
                {
                    split: judge(probe.scores(faces[split]), faces[split])
                    for split in ("validation", "test")
                },
            )
            write_tower(model, processor, "vision", folder)

    def audio(self) -> None:
        """The audio tower, on voices, from where rendered voices have brought the tiny model's."""
        steps, rate = VOICES
        with self._stage("audio") as folder:
            if folder is None:
                return
            model, processor = from_preset("small")
            begin_voices(model, load_model("tiny")[0])
            voices = read_voices(
                self.rows("voices"),
                processor.feature_extractor,
                self.out / "features",
                logger.info,
            )
            parts = {
                split: [i for i, row in enumerate(voices.rows) if row.split in names]
                for split, names in (
                    ("train", ("train",)),
                    ("validation", ("val", "validation")),
                    ("test", ("test",)),
                )
            }
            probe = train_voices(
                model,
                voices,
                parts["train"],
                parts["validation"],
                steps=max(1, round(steps * self.part)),
                learning_rate=rate,
                seed=0,
                folder=self.out / "runs",
                say=logger.info,
            )
            self._note(
                "audio",
                {
                    split: judge_voices(probe, voices, parts[split], HEARD_S)
                    for split in ("validation", "test")
                },
            )
            write_tower(model, processor, "audio", folder)

    def manifest(self, name: str) -> Path:
        """Manifest of one of `CORPORA`."""
        return self.out / "manifests" / f"{name}.jsonl"

    def rows(self, name: str) -> list[Row]:
        """Its rows."""
        return read_manifest(self.manifest(name))

    @contextmanager
    def _stage(self, name: str) -> Iterator[Path | None]:
        """The folder that a tower goes to; None if it is there already."""
        folder = self.out / "towers" / name
        if (folder / "model.safetensors").is_file():
            yield None
            return
        (self.out / "runs").mkdir(parents=True, exist_ok=True)
        logger.info("%s tower: begun", name)
        yield folder

    def _note(self, name: str, scores: Mapping[str, Any]) -> None:
        """Keep what a tower was measured at."""
        logger.info("%s tower: %s", name, json.dumps(scores))
        file = self.out / "runs" / f"{name}.scores.json"
        file.write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Command line of the recipe."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpora", type=Path, required=True, metavar="DIR")
    parser.add_argument("--out", type=Path, default=Path("runs/small"))
    parser.add_argument("--towers", nargs="+", choices=TOWERS, default=TOWERS, metavar="NAME")
    parser.add_argument("--part", type=float, default=1.0, help="of the steps, for a trial")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        Recipe(options.corpora, options.out, options.part).run(options.towers)
    except EmostreamError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
