"""The `emostream-train` command. Nothing heavy is imported until a subcommand needs it."""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from emostream.console import write_anything
from emostream.errors import EmostreamError
from emostream.shadowing import refuse_shadowed_packages
from emostream.startup import start_quickly
from training.progress import bars

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; a user's error is one line on stderr and exit code 2."""
    start_quickly()
    write_anything()
    parser = _parser()
    options, settings = parser.parse_known_args(argv)
    options.settings = settings
    if options.settings and not getattr(options, "takes_settings", False):
        parser.error(f"unrecognized arguments: {' '.join(options.settings)}")
    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.WARNING,
        format="%(name)s: %(message)s",
        stream=sys.stderr,
    )
    try:
        refuse_shadowed_packages()
        options.handler(options)
    except EmostreamError as error:
        print(f"emostream-train: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        print("emostream-train: interrupted; the same command continues", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="emostream-train", description="Corpora, training and evaluation of emotion models."
    )
    parser.add_argument("--verbose", action="store_true", help="log what happens to stderr")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    corpus = commands.add_parser("corpus", help="make or index a corpus of labelled clips")
    kinds = corpus.add_subparsers(metavar="COMMAND", required=True)
    _add_synth(_command(kinds, "synth", _synth, "render a corpus of synthetic actors"))
    _add_index(_command(kinds, "index", _index, "turn a published corpus into a manifest"))
    _add_eval(_command(commands, "eval", _eval, "evaluate a model on a manifest's clips"))
    _add_faithful(
        _command(commands, "faithful", _faithful, "test whether reasons follow from what is shown")
    )
    table = _command(commands, "table", _compare, "put several evaluations side by side")
    table.add_argument("dir", type=Path, metavar="DIR", help="holds ROW-seedK/SPLIT/eval.json")
    table.add_argument("--out", type=Path, required=True, metavar="F.md")
    table.add_argument("--json", type=Path, metavar="F.json", help="the figures, to compute with")
    _add_training(commands, "sft", _sft, "train on answers: cold start, label-only")
    grpo = _add_training(commands, "grpo", _grpo, "train a reasoning model by rewards")
    grpo.add_argument("--paper", action="store_true", help="R1-Omni's settings and rewards")
    return parser


def _command(
    parent: Any,
    name: str,
    handler: Callable[[argparse.Namespace], None],
    text: str,
    *,
    add_help: bool = True,
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = parent.add_parser(
        name, help=text, description=text[0].upper() + text[1:] + ".", add_help=add_help
    )
    command.set_defaults(handler=handler)
    return command


def _add_synth(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="D")
    parser.add_argument("--clips", type=int, required=True, metavar="N")
    parser.add_argument("--seed", type=int, required=True, metavar="S")
    parser.add_argument("--split", choices=("train", "test", "ood"), default="train")
    parser.add_argument("--workers", type=int, metavar="N", help="processes; one a CPU by default")
    parser.add_argument(
        "--twins",
        type=_list,
        default=(),
        metavar="A,B",
        help="also each clip with one cause changed: face_cue, voice_cue, face, voice, both, actor, take",
    )


def _add_index(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "kind",
        metavar="KIND",
        help="dfew, mafw, ravdess, crema-d, emer, mer2025, conversations, ferplus, webfaces, or folder (with a CSV, "
        "or a folder for each label)",
    )
    parser.add_argument("dir", type=Path, metavar="DIR", help="where the corpus is unpacked")
    parser.add_argument("--out", type=Path, required=True, metavar="M.jsonl")
    parser.add_argument("--fold", type=int, default=1, help="which fold is the test set (1 to 5)")
    parser.add_argument("--split", help="put every clip into this split")
    parser.add_argument("--labels", type=_list, metavar="A,B", help="keep only these labels")
    parser.add_argument(
        "--rename",
        type=_renaming,
        action="append",
        default=[],
        metavar="A=B",
        help="count label A as B, e.g. calm=neutral; may be repeated",
    )
    parser.add_argument(
        "--clips", metavar="FOLDER", help="folder of the clips, if there are copies"
    )
    parser.add_argument(
        "--by-name",
        action="store_true",
        help="find a clip that is not where its list says by its file name, where only one has it",
    )
    parser.add_argument("--encoding", metavar="E", help="of lists that are not UTF-8, such as gbk")
    parser.add_argument(
        "--measure-voice", action="store_true", help="add voice cues, measured with Praat"
    )


def _add_eval(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", required=True, metavar="M", help="small, tiny, a folder or a hub id"
    )
    parser.add_argument("--manifest", type=Path, required=True, metavar="F.jsonl")
    parser.add_argument("--out", type=Path, required=True, metavar="D")
    parser.add_argument("--split", help="only this split; by default all but train")
    parser.add_argument("--labels", type=_list, metavar="A,B", help="label set (default: DFEW's)")
    parser.add_argument("--limit", type=int, metavar="N", help="a random sample of so many clips")
    parser.add_argument("--device", default="cpu", help="torch device")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument(
        "--features",
        type=Path,
        metavar="DIR",
        help="keep what the frozen towers make of the clips here, for other models with the same towers",
    )
    parser.add_argument(
        "--batch-size", type=int, metavar="N", help="clips at once (default: 8; 64 with --features)"
    )
    parser.add_argument("--max-new-tokens", type=int, default=256, metavar="N")
    parser.add_argument("--no-reasoning", action="store_true", help="score labels only")
    parser.add_argument(
        "--conditions",
        type=_list,
        metavar="A,B",
        help="of both, video, audio, shuffled_audio (default: all)",
    )
    parser.add_argument("--instruction", help="question of the prompt")
    _add_heard(parser)
    parser.add_argument("--seed", type=int, default=0, help="of samples and shuffled sound")


def _add_faithful(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", required=True, metavar="M", help="small, tiny, a folder or a hub id"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="D")
    parser.add_argument(
        "--manifest",
        type=Path,
        metavar="F.jsonl",
        help="clips to test on, with their twins.jsonl beside it if they have any (default: rendered ones)",
    )
    parser.add_argument("--clips", type=int, default=200, metavar="N", help="at most so many clips")
    parser.add_argument("--seed", type=int, default=0, help="of the clips")
    parser.add_argument("--split", help="test or ood, or of the manifest (default: test, or all)")
    parser.add_argument("--labels", type=_list, metavar="A,B", help="label set (default: DFEW's)")
    parser.add_argument("--twins", type=_list, metavar="A,B", help="kinds of twins (default: all)")
    parser.add_argument("--edits", type=_list, metavar="A,B", help="edits (default: all)")
    parser.add_argument(
        "--features",
        type=Path,
        metavar="DIR",
        help="keep what the frozen towers make of the clips here, for other models with the same towers "
        "(default: in --out)",
    )
    parser.add_argument("--device", default="cpu", help="torch device")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="clips at once")
    parser.add_argument("--max-new-tokens", type=int, default=128, metavar="N")
    parser.add_argument("--instruction", help="question of the prompt")
    _add_heard(parser)


def _add_heard(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--heard-s",
        type=float,
        default=0.0,
        metavar="N",
        help="how long each actor was heard before, in his other clips (default: 0)",
    )


def _add_training(
    commands: Any, name: str, handler: Callable[[argparse.Namespace], None], text: str
) -> argparse.ArgumentParser:
    """Options of a trainer; what else stands on its command line goes to its settings."""
    parser = _command(commands, name, handler, text, add_help=False)
    parser.add_argument(
        "-h", "--help", action=_HelpOnSettings, help="show this and all settings, and exit"
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="C.yaml",
        help="settings of the run, or a recipe of ours, such as label_only",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="D", help="output folder")
    parser.epilog = "Every setting may also be given as a flag, --name value, over the file's."
    parser.set_defaults(takes_settings=True)
    return parser


class _HelpOnSettings(argparse.Action):
    """`--help` that goes on with the settings; they take seconds to import."""

    def __init__(self, **kwargs: Any):
        super().__init__(nargs=0, **kwargs)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from training.settings_help import describe

        print(parser.format_help())
        print("\n".join(describe(parser.prog.split()[-1])))
        parser.exit()


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _renaming(text: str) -> tuple[str, str]:
    before, equals, after = (part.strip() for part in text.partition("="))
    if not (before and equals and after):
        raise argparse.ArgumentTypeError(f"wanted A=B, found {text!r}")
    return before, after


def _synth(options: argparse.Namespace) -> None:
    from training.synth.command import synth

    report = synth(
        options.out,
        options.clips,
        options.seed,
        options.split,
        options.workers,
        twins=options.twins,
    )
    rate = report.written / report.elapsed_s if report.elapsed_s else 0.0
    print(
        f"{report.manifest}: {report.clips} clips"
        + (f" and {report.twins} twins" if report.twins else "")
        + f", {report.written} rendered at {rate:.1f} a "
        f"second on {report.workers} processes, {report.kept} kept, {report.bytes / 1e6:.1f} MB"
    )


def _index(options: argparse.Namespace) -> None:
    from training.corpora.candidates import Options
    from training.corpora.index import index

    chosen = Options(
        fold=options.fold,
        split=options.split,
        labels=options.labels,
        rename=dict(options.rename),
        clips=options.clips,
        by_name=options.by_name,
        encoding=options.encoding,
    )
    with bars() as step:
        report = index(
            options.kind,
            options.dir,
            options.out,
            chosen,
            measure_voice=options.measure_voice,
            on_progress=step,
        )
    for line in report.lines():
        print(line)


def _eval(options: argparse.Namespace) -> None:
    from emostream.labels import DEFAULT_LABELS
    from training.evaluation.rows import evaluation_rows

    labels = options.labels or DEFAULT_LABELS
    rows = evaluation_rows(
        options.manifest,
        labels,
        split=options.split,
        limit=options.limit,
        seed=options.seed,
    )

    import torch

    from emostream import load_model
    from emostream.devices import resolve_device
    from training.data.features import cache_features
    from training.evaluation.evaluate import evaluate
    from training.evaluation.outcomes import CONDITIONS
    from training.evaluation.predict import EvalSettings

    batch_size = options.batch_size
    if batch_size is None:
        batch_size = 8 if options.features is None else 64
    settings = EvalSettings(
        labels=labels,
        reasoning=not options.no_reasoning,
        conditions=options.conditions or CONDITIONS,
        batch_size=batch_size,
        max_new_tokens=options.max_new_tokens,
        seed=options.seed,
        instruction=options.instruction,
        heard_s=options.heard_s,
    )
    device = resolve_device(options.device)
    model, processor = load_model(options.model, device, getattr(torch, options.dtype))
    with bars() as step:
        store = options.features and cache_features(
            model,
            processor,
            rows,
            options.features,
            on_progress=lambda done, total: step("clips encoded", done, total),
        )
        result = evaluate(
            model,
            processor,
            rows,
            options.out,
            settings,
            store=store,
            model_name=options.model,
            manifest_name=options.manifest.name,
            on_progress=lambda done, total: step("clips evaluated", done, total),
        )
    print(
        f"{options.out / 'report.md'}: WAR {100 * result['war']:.1f}, UAR {100 * result['uar']:.1f}"
        f" on {result['clips']} clips"
        + (f", {sum(result['skipped'].values())} skipped" if result["skipped"] else "")
    )


def _faithful(options: argparse.Namespace) -> None:
    from training.faithful.run import RESULT, FaithfulSettings, find_clips, measure

    names = (
        "clips",
        "seed",
        "split",
        "batch_size",
        "max_new_tokens",
        "instruction",
        "labels",
        "edits",
        "heard_s",
    )
    given = {name: getattr(options, name) for name in names}
    given["kinds"] = options.twins
    settings = FaithfulSettings(**{name: v for name, v in given.items() if v is not None})
    clips = find_clips(options.manifest, options.out, settings)

    from emostream import load_model
    from emostream.devices import resolve_device

    model, processor = load_model(options.model, resolve_device(options.device))
    with bars() as step:
        result = measure(
            model,
            processor,
            clips,
            options.out,
            settings,
            model_name=options.model,
            features=options.features,
            on_progress=step,
        )
    print(f"{options.out / RESULT}: {result['clips']} clips, {len(clips.twins)} twins")


def _compare(options: argparse.Namespace) -> None:
    import json

    from training.evaluation.table import compare, markdown, read_fused, read_runs

    result = compare(read_runs(options.dir), read_fused(options.dir))
    for path, text in (
        (options.out, markdown(result)),
        (options.json, json.dumps(result, indent=1) + "\n"),
    ):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    print(f"{options.out}: {len(result['runs'])} evaluations of {', '.join(result['splits'])}")


def _sft(options: argparse.Namespace) -> None:
    from training.sft.train import sft
    from training.tuning.setup import leave_process_group

    model = sft(options.config, options.out, options.settings, progress=bars)
    leave_process_group()
    if model is not None:
        print(f"{model}: the trained checkpoint")


def _grpo(options: argparse.Namespace) -> None:
    from training.grpo.train import grpo
    from training.tuning.setup import leave_process_group

    model = grpo(options.config, options.out, options.settings, paper=options.paper, progress=bars)
    leave_process_group()
    if model is not None:
        print(f"{model}: the trained checkpoint")


if __name__ == "__main__":
    sys.exit(main())
