"""`make small CORPORA=…`: a model that has seen and heard people, from the corpora to its table of results.

CORPORA/faces/      FER+ and web faces, CORPORA/audio.csv with CORPORA/audio/: see docs/corpora.md
OUT/manifests/      what is in them, as `emostream-train corpus index` writes it
OUT/actors/         rendered examples, which teach single actions
OUT/towers/         the trained towers, each in a folder of its own repository's layout; `faces` has seen people alone
OUT/corpora/        rendered clips, as `emostream-train corpus synth` writes them
OUT/models/         base-seedK, cold_start-seedK, grpo-seedK
OUT/eval/           ROW-seedK/SPLIT/
OUT/runs/           logs, scores on validation and test people, states that an interrupted run goes on from

A stage whose result is there is not run again; an interrupted one continues where it was. People teach perception,
rendered actors fusion, single actions and words. The language model begins as the tiny model's.
"""

import argparse
import itertools
import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import WhisperFeatureExtractor

from emostream import load_model, save_model
from emostream.errors import ConfigError, EmostreamError
from emostream.labels import DEFAULT_LABELS
from emostream.model.modeling import EmostreamForCausalLM
from emostream.model.presets import from_preset
from emostream.model.processor import EmostreamProcessor
from emostream.model.prosody import PROSODY_WIDTH
from training.corpora.candidates import Options
from training.corpora.index import index
from training.data.features import cache_features
from training.data.manifest import Row, read_manifest, write_manifest
from training.evaluation.calibration import fit_temperature
from training.evaluation.predict import EvalSettings, predict
from training.recipe.actor_faces import cut_actor_faces
from training.recipe.people_faces import FaceProbe, judge, read_faces, train_faces, transferred
from training.recipe.people_rows import (
    HEARD_S,
    drawn_faces,
    face_cues,
    neutral_talkers,
    recorded,
    stretches,
    voice_cues,
)
from training.recipe.people_voices import begin_voices, judge_voices, train_voices
from training.recipe.stages import CPU, MALLOC, Stages, encode_all, train_command
from training.recipe.tiny import TOWER_SEED
from training.recipe.tower_data import Arrays, is_held_out, read_shards, render
from training.recipe.tower_files import read_tower, write_tower
from training.recipe.voice_data import Voices, read_voices
from training.recipe.voice_heads import fit_voice_heads, heads_of
from training.recipe.voice_pitch import fit_pitch
from training.sft.compose import corpus_texts

logger = logging.getLogger(__name__)

#: Steps, batch and highest learning rate: on people alone, then on people and actors.
FACES = (2600, 128, 2e-3)
FACES_AND_ACTORS = (2400, 128, 1.2e-3)
#: Rendered clips, and those of other actors for validation.
ACTORS = (8000, 500)
#: Steps and highest learning rate.
VOICES = (1400, 5e-4)

#: Rendered clips of each corpus and its seed; of the tests, the first of those that the tiny model is judged on.
CLIPS = {"train": (6000, 1), "test": (1050, 0), "ood": (700, 0)}
#: Faces that the language model is shown, and clips of actors in its cold start; GRPO sees the others and as many
#: people.
FACES_SHOWN, COLD_START_CLIPS = 7000, 4800
SFT = (
    *(*CPU, "--learning_rate", "1e-3", "--label_first", "1.0", "--wordings", "2"),
    *("--num_train_epochs", "3", "--eval_steps", "800", "--save_steps", "150"),
    *("--clear_from", "0.71"),
)
GRPO = (
    *(*CPU, "--learning_rate", "1e-4", "--lr_scheduler_type", "cosine", "--temperature", "0.8"),
    *("--max_steps", "110", "--beta", "0.04", "--rewards", "accuracy", "format", "grounding"),
    *("--reward_weights", "1", "0.5", "2", "--contradiction_cost", "6"),
    *("--least_claims", "1", "--grounding_floor", "-1"),
)
#: Test -> flags of `eval`; a name before an @ is that of the manifest.
TESTS = {
    "test": (),
    "ood": (),
    "test_faces": ("--conditions", "video"),
    "test_voices": ("--conditions", "audio"),
    "talkers": ("--no-reasoning", "--conditions", "both"),
    "test_voices@60": ("--conditions", "audio", "--heard-s", "60"),
}
#: Ours -> what corpora call it.
SPLITS = {"train": ("train",), "validation": ("val", "validation"), "test": ("test",)}
TOWERS = ("vision", "audio")

#: The head that tells action units; how well one must tell people apart for the reasons to speak of it.
UNITS, TOLD_FROM = "units.safetensors", 0.8
VISION_SCORES = "vision.scores.json"
#: Tower -> what its folder is called where it is kept.
KEPT = {"vision": "small-siglip", "audio": "small-whisper"}
VOICE_HEADS = "voice_heads.safetensors"
#: Manifest -> kind of corpus and where it lies below the corpora's folder.
CORPORA = {
    "ferplus": ("ferplus", "faces"),
    "webfaces": ("webfaces", "faces"),
    "voices": ("folder", "audio.csv"),
}


class Recipe(Stages):
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
        super().__init__("small", out)
        self.corpora, self.part = corpora, part

    def run(self, towers: Sequence[str], seeds: Sequence[int]) -> None:
        """Everything that is not there yet.

        Args:
            towers: Which to train.
            seeds: Of the language model's stages.
        """
        self.index()
        missing = [name for name in towers if not self.has_tower(name)]
        if len(missing) == 1:
            with self.step(f"{missing[0]} tower", "trained on people and rendered actors"):
                {"vision": self.vision, "audio": self.audio}[missing[0]]()
        elif missing:
            with self.step("actors", f"{sum(ACTORS):,} examples rendered"):
                self.actors()
            with self.step("towers", "each by a command of its own, a core each"):
                words = ("--corpora", self.corpora, "--out", self.out, "--part", self.part)
                command = (sys.executable, "-m", "training.recipe.small", *words, "--seeds")
                self.commands({f"{name}-tower": (*command, "--towers", name) for name in missing})
        if not seeds:
            return
        with self.step("corpora", "rendered clips; what the language model is shown of people"):
            self.clips()
            self.shown()
        for seed in seeds:
            self.base(seed)
        with self.step("features", "everything decoded and encoded"):
            self.encode(seeds[0])
            self.fit_voices(seeds)
        with self.step("cold start", "SFT on people and actors, for each seed"):
            self.train_rows({"cold_start": ("sft", "cold_start", "base", SFT)}, seeds)
        with self.step("tuning", "GRPO, for each seed"):
            self.train_rows({"grpo": ("grpo", "grpo", "cold_start", GRPO)}, seeds)
        with self.step("evaluation", "people and actors that no training saw"):
            for row, seed in itertools.product(("cold_start", "grpo"), seeds):
                self.calibrate(row, seed)
            self.evaluate(seeds)

    def keep(self, folder: Path) -> None:
        """Start from towers that were trained before.

        Args:
            folder: With both of `KEPT`, and what was learned of actors beside them.

        Raises:
            ConfigError: Something of it is missing.
        """
        wanted = [*KEPT.values(), UNITS, VISION_SCORES]
        if missing := [name for name in wanted if not (folder / name).exists()]:
            raise ConfigError(
                f"small: --kept {folder} has no {missing[0]}; wanted what benchmarks/small_towers.py keeps of a run"
            )
        for name, kept in KEPT.items():
            shutil.copytree(folder / kept, self.out / "towers" / name, dirs_exist_ok=True)
        (self.out / "runs").mkdir(exist_ok=True)
        for name in (UNITS, VISION_SCORES):
            shutil.copy(folder / name, self.out / "runs" / name)

    def index(self) -> None:
        """Manifests of all corpora; duplicates are dropped."""
        for name, (kind, place) in CORPORA.items():
            if not self.manifest(name).is_file():
                options = Options(labels=DEFAULT_LABELS)
                report = index(kind, self.corpora / place, self.manifest(name), options)
                logger.info("%s", "\n".join(report.lines()))

    def vision(self) -> None:
        """The vision tower: on people's faces, then on those of people and actors."""
        for name, actors in (("faces", False), ("vision", True)):
            steps, batch, rate = FACES_AND_ACTORS if actors else FACES
            with self._stage(name) as folder:
                if folder is None:
                    continue
                model, processor = from_preset("small")
                side, margin = model.config.vision_config.image_size, model.config.crop_margin
                rows = [row for name in ("ferplus", "webfaces") for row in self.rows(name)]
                faces = {
                    split: read_faces([row for row in rows if row.split == split], side)
                    for split in ("train", "validation", "test")
                }
                acting = None
                if actors:
                    read_tower(model, "vision", self.out / "towers" / "faces")
                    acting = {
                        split: cut_actor_faces(
                            shards, side, margin, self.out / "features" / f"actors_{split}.npz"
                        )
                        for split, shards in self.actors().items()
                    }
                probe = train_faces(
                    model.model,
                    faces["train"],
                    faces["validation"],
                    acting,
                    steps=max(1, round(steps * self.part)),
                    batch_size=batch,
                    learning_rate=rate,
                    seed=0,
                    folder=self.out / "runs",
                    say=logger.info,
                )
                scores = {
                    split: judge(probe.scores(faces[split]), faces[split])
                    for split in ("validation", "test")
                }
                if acting is not None:
                    scores["actors"] = probe.acting(acting["validation"])
                    scores["transferred"] = transferred(probe, faces["validation"])
                    save_file(probe.units.state_dict(), self.out / "runs" / UNITS)
                self._note(name, scores)
                write_tower(model, processor, "vision", folder)

    def actors(self) -> dict[str, list[Arrays]]:
        """Rendered examples."""
        folder = self.out / "actors"
        clips, validation = (max(8, round(clips * self.part)) for clips in ACTORS)
        render(
            folder,
            clips=clips,
            validation=validation,
            seed=TOWER_SEED,
            workers=os.cpu_count() or 1,
            say=logger.info,
            size=min(1000, clips),
        )
        return {split: read_shards(folder / split) for split in ("train", "validation")}

    def audio(self) -> None:
        """The audio tower, on voices, from where rendered voices have brought the tiny model's."""
        steps, rate = VOICES
        with self._stage("audio") as folder:
            if folder is None:
                return
            model, processor = from_preset("small")
            begin_voices(model, load_model("tiny")[0])
            voices = self.voices(processor.feature_extractor)
            parts = {
                split: [i for i, row in enumerate(voices.rows) if row.split in names]
                for split, names in SPLITS.items()
            }
            probe = train_voices(
                model,
                voices,
                parts["train"],
                parts["validation"],
                self.actors(),
                steps=max(1, round(steps * self.part)),
                learning_rate=rate,
                seed=0,
                folder=self.out / "runs",
                say=logger.info,
            )
            error = fit_pitch(model.model.audio_tower, voices, parts["train"])
            self._note(
                "audio",
                {"pitch_error_semitones": round(error, 2)}
                | {
                    split: judge_voices(probe, voices, parts[split], HEARD_S)
                    for split in ("validation", "test")
                }
                | {"actors": probe.acting(self.actors()["validation"])},
            )
            write_tower(model, processor, "audio", folder)

    def voices(self, extractor: WhisperFeatureExtractor) -> Voices:
        """Utterances of people."""
        return read_voices(self.rows("voices"), extractor, self.features, logger.info)

    def clips(self) -> None:
        """Render clips of actors."""
        for split, (clips, seed) in CLIPS.items():
            folder = self.out / "corpora" / split
            if not (folder / "manifest.jsonl").is_file():
                count = max(6, round(clips * self.part))
                words = ("--out", folder, "--clips", count, "--seed", seed, "--split", split)
                self.commands({f"corpus-{split}": train_command("corpus", "synth", *words)})

    def shown(self) -> None:
        """What the language model is shown: parts for cold start, GRPO, validation and tests."""
        if self.manifest("test_voices").is_file():
            return
        rng = np.random.default_rng(0)
        _, processor = from_preset("small")
        voices = self.voices(processor.feature_extractor)
        cues = voice_cues(voices)
        of = {
            split: [i for i, row in enumerate(voices.rows) if row.split in names]
            for split, names in SPLITS.items()
        }
        cut = stretches(voices, of["train"], cues, rng)
        whole = recorded(voices, of["train"], cues, rng)
        speech = {
            "train": [pair[rng.integers(2)] for pair in zip(cut, whole, strict=True)],
            "validation": stretches(voices, of["validation"], cues, rng),
        }
        stills = [row for name in ("ferplus", "webfaces") for row in self.rows(name)]
        faces = {
            split: drawn_faces([row for row in stills if row.split in names], count, rng)
            for (split, names), count in zip(
                SPLITS.items(), (round(FACES_SHOWN * self.part), 400, len(stills)), strict=True
            )
        }
        faces["train"] = self._told(faces["train"])
        actors = read_manifest(self.out / "corpora" / "train" / "manifest.jsonl")
        held_out = [row for row in actors if is_held_out(row.actor)][:300]
        others = [row for row in actors if not is_held_out(row.actor)]
        cold = round(COLD_START_CLIPS * self.part)
        people = [*faces["train"], *speech["train"]]
        rng.shuffle(people)
        mixed = [*others[:cold], *people]
        rng.shuffle(mixed)
        reward = [*others[cold:], *people[: len(others) - cold]]
        rng.shuffle(reward)
        parts = {
            "cold_start": mixed,
            "grpo": reward,
            "speech": [*cut, *whole],
            "validation": [*held_out, *faces["validation"], *speech["validation"][:400]],
            "test_faces": faces["test"],
            "test_voices": [
                replace(voices.rows[index], cues=cues.get(index)) for index in of["test"]
            ],
        }
        for name, rows in parts.items():
            write_manifest(
                self.manifest(name),
                [replace(row, split="train") for row in rows]
                if name in ("cold_start", "grpo", "speech")
                else rows,
            )

    def _told(self, rows: Sequence[Row]) -> list[Row]:
        """Faces with what they do, where that can be told."""
        model, _ = from_preset("small")
        read_tower(model, "vision", self.out / "towers" / "vision")
        probe = FaceProbe(model.model).eval()
        probe.units.load_state_dict(load_file(self.out / "runs" / UNITS))
        scores = json.loads((self.out / "runs" / VISION_SCORES).read_text(encoding="utf-8"))
        told = [unit for unit, area in scores["transferred"].items() if area >= TOLD_FROM]
        logger.info("told of people's faces: %s", ", ".join(told))
        faces = read_faces(rows, model.config.vision_config.image_size)
        assert len(faces.labels) == len(rows)
        cues = face_cues(probe, faces, told)
        return [replace(row, cues=found) for row, found in zip(rows, cues, strict=True)]

    def base(self, seed: int) -> None:
        """The tiny model's language model behind the new towers; what joins them has random weights."""
        folder = self.model("base", seed)
        if (folder / "config.json").is_file():
            return
        heads = heads_of(self.rows("voices"))
        model, processor = from_preset("small", seed=seed, texts=corpus_texts(), voice_heads=heads)
        for name in TOWERS:
            read_tower(model, name, self.out / "towers" / name)
        take_language(model, processor, *load_model("tiny"))
        save_model(model, processor, folder)

    def encode(self, seed: int) -> None:
        """Run the towers over all clips once, by a process a core."""
        done = self.features / "encoded.json"
        if done.is_file():
            return
        names = ("cold_start", "grpo", "speech", "validation")
        rows = [row for name in names for row in read_manifest(self.manifest(name))]
        encode_all(self.model("base", seed), self.features, rows)
        done.write_text(json.dumps({"clips": len(rows)}) + "\n", encoding="utf-8")

    def fit_voices(self, seeds: Sequence[int]) -> None:
        """Fit the voice heads, to more speech than the language model is shown; all seeds have the same."""
        done = self.out / "runs" / VOICE_HEADS
        if not done.is_file():
            rows = self.rows("speech")
            model, processor = load_model(self.model("base", seeds[0]))
            store = cache_features(model, processor, rows, self.features)
            heads = model.model.voice_heads
            assert heads is not None
            fit_voice_heads(heads, store, store.usable(rows), PROSODY_WIDTH)
            save_file(heads.state_dict(), done)
        for seed in seeds:
            model, processor = load_model(self.model("base", seed))
            heads = model.model.voice_heads
            assert heads is not None
            heads.load_state_dict(load_file(done))
            save_model(model, processor, self.model("base", seed))

    def calibrate(self, row: str, seed: int) -> None:
        """Fit the temperature of a model's scores on validation people and actors."""
        model, processor = load_model(self.model(row, seed))
        if model.config.label_temperature != 1:
            return
        rows = read_manifest(self.manifest("validation"))
        store = cache_features(model, processor, rows, self.features)
        rows = store.usable(rows)
        settings = EvalSettings(reasoning=False, conditions=("both",), batch_size=64)
        batches = predict(model, processor, rows, range(len(rows)), settings, store)
        found = fit_temperature(itertools.chain.from_iterable(batches))
        logger.info("%s-seed%d: temperature %g", row, seed, found)
        model.config.label_temperature = found
        save_model(model, processor, self.model(row, seed))

    def evaluate(self, seeds: Sequence[int]) -> None:
        """Cold start and the tuned model on all test sets; the tiny model on the same actors."""
        talkers = neutral_talkers(self.corpora / "av.csv")
        if talkers:
            write_manifest(self.manifest("talkers"), talkers)
        commands: dict[str, tuple[object, ...]] = {}
        models = {
            f"{row}-seed{s}": self.model(row, s) for row in ("cold_start", "grpo") for s in seeds
        }
        for (name, model), (test, flags) in itertools.product(models.items(), TESTS.items()):
            if test == "talkers" and not talkers:
                continue
            commands |= self._evaluation(name, model, test, flags)
        for split in ("test", "ood"):
            commands |= self._evaluation("tiny", Path("tiny"), split, TESTS[split])
        self.commands(commands)

    def _evaluation(
        self, name: str, model: Path, test: str, flags: Sequence[str]
    ) -> dict[str, tuple[object, ...]]:
        folder = self.out / "eval" / name / test
        if (folder / "eval.json").is_file():
            return {}
        manifest = test.partition("@")[0]
        words = ("eval", "--model", model, "--manifest", self.manifest(manifest), "--out", folder)
        return {
            f"eval-{name}-{test}": train_command(
                *words, "--features", self.features, "--max-new-tokens", 96, *flags
            )
        }

    def manifest(self, name: str) -> Path:
        """Manifest of one of `CORPORA`, of rendered tests, or of what the language model is shown."""
        if name in ("test", "ood"):
            return self.out / "corpora" / name / "manifest.jsonl"
        return super().manifest(name)

    def rows(self, name: str) -> list[Row]:
        """Its rows."""
        return read_manifest(self.manifest(name))

    def has_tower(self, name: str) -> bool:
        """Whether it is there."""
        return (self.out / "towers" / name / "model.safetensors").is_file()

    @contextmanager
    def _stage(self, name: str) -> Iterator[Path | None]:
        """The folder that a tower goes to; None if it is there already."""
        if self.has_tower(name):
            yield None
            return
        (self.out / "runs").mkdir(parents=True, exist_ok=True)
        logger.info("%s tower: begun", name)
        yield self.out / "towers" / name

    def _note(self, name: str, scores: Mapping[str, Any]) -> None:
        """Keep what a tower was measured at."""
        logger.info("%s tower: %s", name, json.dumps(scores))
        file = self.out / "runs" / f"{name}.scores.json"
        file.write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")


@torch.no_grad()
def take_language(
    model: EmostreamForCausalLM,
    processor: EmostreamProcessor,
    other: EmostreamForCausalLM,
    its: EmostreamProcessor,
) -> None:
    """Give a model the language model of another of the same size that has other words.

    A token begins as the mean of those that the other spells it with.
    """
    ours, theirs = model.model, other.model
    ours.layers.load_state_dict(theirs.layers.state_dict())
    ours.norm.load_state_dict(theirs.norm.state_dict())
    for token in range(len(processor.tokenizer)):
        spelled = its.tokenizer(processor.tokenizer.decode([token]), add_special_tokens=False)
        if ids := spelled["input_ids"]:
            ours.embed_tokens.weight[token] = theirs.embed_tokens.weight[ids].mean(0)


def main() -> None:
    """Command line of the recipe."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpora", type=Path, required=True, metavar="DIR")
    parser.add_argument("--out", type=Path, default=Path("runs/small"))
    parser.add_argument("--towers", nargs="+", choices=TOWERS, default=TOWERS, metavar="NAME")
    parser.add_argument("--kept", type=Path, metavar="DIR", help="start from towers that are kept")
    parser.add_argument("--part", type=float, default=1.0, help="of the steps, for a trial")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0], metavar="N")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    os.environ.update(MALLOC)  # for the processes of all stages
    try:
        recipe = Recipe(options.corpora, options.out, options.part)
        if options.kept:
            recipe.keep(options.kept)
        recipe.run(options.towers, options.seeds)
    except EmostreamError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
