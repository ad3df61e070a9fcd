"""The tables of measurements in the documents, written from `benchmarks/results/*.json`.

    python benchmarks/tables.py            # rewrite them
    python benchmarks/tables.py --check    # fail if one is not what the results say

A table stands between `<!-- table: NAME -->` and `<!-- table end -->`; NAME is a key of `TABLES`.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from training.evaluation.table import TITLES, markdown, percent
from training.faithful.edits import EDITS
from training.faithful.pairs import FIGURES
from training.synth.twins import KINDS

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
DOCUMENTS = (
    ROOT / "README.md",
    ROOT / "docs" / "annotate.md",
    ROOT / "docs" / "performance.md",
    ROOT / "docs" / "results.md",
)
HOP_S = 0.5
_MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- table end -->)", re.DOTALL)

Result = dict[str, Any]


def fill(text: str) -> str:
    """A document with its tables as the results say.

    Raises:
        KeyError: A marker names no table.
    """
    return _MARKED.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}{found[3]}", text)


def live() -> str:
    """`benchmarks/live.py`: one row a run."""
    rows = []
    for result in sorted(_results("live_*"), key=lambda r: (r["model"], r["sources"])):
        total = result["latency_ms"]["total"]
        spoken = "labels and reasoning" if result["reasonings"] else "labels"
        rows.append(
            [
                Path(result["model"]).name,
                result["sources"],
                spoken,
                f"{result['hops_dropped']} of {result['hops_expected']}",
                *(f"{total[name]:.0f}" for name in ("p50", "p95", "p99")),
                f"{result['cpu_percent_mean']:.0f} %",
                f"{result['rss_all_mb_max']:.0f} MB",
                _machine(result),
            ]
        )
    head = "model|sources|publishes|hops lost|p50 ms|p95 ms|p99 ms|CPU of one core|memory|machine"
    return _table(head, rows) + _from("live_*")


def web() -> str:
    """`benchmarks/web.py`: what the page's server costs, by the number of pages that are open."""
    rows = [
        [row["pages"], f"{row['cpu_percent']:.1f} %", f"{row['rss_mb']:.0f} MB"]
        for result in _results("web")
        for row in result["rows"]
    ]
    return _table("pages|CPU of one core|memory", rows) + _from("web")


def model() -> str:
    """`benchmarks/model.py`: what a hop and a token cost, beside the least that they could."""
    rows = []
    for result in _results("model_*"):
        for measured in result["results"]:
            parts = {row["part"]: row for row in measured["rows"]}
            rows.append(
                [
                    f"`{measured['preset']}`, {measured['dtype']}",
                    f"{measured['parameters'] / 1e6:.0f} M",
                    f"{measured['audio_context_s']:g} s",
                    _beside_floor(parts["window from scratch to label"]),
                    _beside_floor(parts["hop: one new frame to label"]),
                    _beside_floor(parts["decode, 1 token"]),
                    _machine(result),
                ]
            )
    head = "model|parameters|sound padded to|whole window, ms|hop, ms|one token, ms|machine"
    return _table(head, rows) + _from("model_*")


def soak() -> str:
    """`benchmarks/soak.py`: each kind of fault, how often, and how long until both sources were whole."""
    text = ""
    for result in _results("soak"):
        kinds: dict[str, list[float]] = {}
        for fault in result["faults"]:
            kinds.setdefault(fault["name"], []).append(max(fault["whole_after_s"].values()))
        lost = {name: 0 for name in kinds}
        for hops in result["lost_hops"].values():
            for name, count in hops.items():
                lost[name] += count
        rows = [[n, len(s), f"{max(s):.1f}", lost[n]] for n, s in sorted(kinds.items())]
        text += _table("fault|times|whole again after at most, s|hops lost", rows)
        growth = result["growth"]["rss_mb"]
        text += (
            f"\n{result['minutes']:g} minutes, {sum(result['labels'].values())} labels. Memory of the main process: "
            f"{growth['first_third']:.0f} MB in the first third, {growth['last_third']:.0f} MB in the last.\n"
        )
    return text + _from("soak")


def annotate() -> str:
    """`benchmarks/annotate.py`: how fast files are labelled, and what many hours of them take."""
    rows = []
    for result in _results("annotate"):
        ways = {
            "`annotate`, 1 job": result["command_1_jobs"],
            "`annotate`, 2 jobs": result["command_2_jobs"],
            "the same without start and loading": result["annotate"],
            "`infer`, likewise": result["infer"],
        }
        for name, way in ways.items():
            per_hour_s = way["cpu_s_per_media_hour"]
            rows.append(
                [
                    name,
                    f"{way['real_time_factor']:.1f} ×",
                    f"{per_hour_s:.0f}",
                    f"{10_000 * per_hour_s / 3600:.0f}",
                    f"{way['load_average']:.1f}",
                ]
            )
    head = "|real time|processor seconds an hour of video|core hours for 10,000 hours|load before"
    return _table(head, rows) + _from("annotate")


def annotate_gpu() -> str:
    """The same on a GPU, as far as `benchmarks/model.py` has measured hops of eight windows together."""
    rows = []
    for result in _results("model_cuda_*"):
        for model in result["results"]:
            media_per_s = 8 * HOP_S / (model["hop_of_n_sources_ms"]["8"] / 1000)
            rows.append(
                [
                    model["preset"],
                    f"{model['audio_context_s']:g}",
                    f"{media_per_s:.0f}",
                    f"{10_000 / media_per_s:.0f}",
                    _machine(result),
                ]
            )
    head = "model|sound padded to, s|hours of video a GPU-hour|GPU-hours for 10,000 hours|GPU"
    return _table(head, rows) + _from("model_cuda_*")


def grpo() -> str:
    """`benchmarks/grpo.py`: what a step of GRPO costs."""
    rows = []
    for result in _results("grpo_*"):
        settings = result["settings"]
        where = f"{settings['threads']} core" if settings["device"] == "cpu" else _machine(result)
        rows.append(
            [
                f"`{settings['preset']}`, {settings['dtype']}",
                f"LoRA {settings['lora_rank']}" if settings["lora_rank"] else "all weights",
                f"{settings['prompts']} × {settings['generations']}",
                f"{result['mean_completion_tokens']:.0f}",
                f"{result['step_s']:.2f} ({result['floor_s']:.2f})",
                f"{result['sampling_s']:.2f}",
                f"{result['completion_tokens_per_s']:.0f}",
                f"{result['peak_memory_gib']:.1f} GiB",
                where,
            ]
        )
    head = "model|trains|prompts × completions|tokens each|step, s|of it sampling, s|tokens a second|memory|on"
    return _table(head, rows) + _from("grpo_*")


def encoders() -> str:
    """`benchmarks/encoders.py`: the same work by each backend."""
    rows = []
    for result in _results("encoders_*"):
        for backend in result["backends"]:
            memory_mb = backend["gpu_memory_mb"] or backend["peak_memory_mb"]
            rows.append(
                [
                    f"`{Path(result['model']).name}`",
                    backend["name"],
                    result.get("dtype", "float32"),
                    *(_ms(backend[key]["p50_ms"]) for key in ("encode", "label", "first label")),
                    f"{backend['tokens_per_s']:.0f}",
                    backend["sources_at_2_hz"],
                    f"{memory_mb / 1e3:.1f} GB",
                    _machine(result),
                ]
            )
    head = "model|backend|language model|towers, ms|hop, ms|whole window, ms|tokens a second|sources at 2 Hz"
    head += "|memory|machine"
    return _table(head, rows) + _from("encoders_*")


def plans() -> str:
    """`benchmarks/tensorrt_build.py`: what TensorRT makes of each graph."""
    text = ""
    for result in _results("tensorrt_build"):
        rows = [
            [
                f"`{plan['preset']}`",
                plan["graph"],
                f"{plan['onnx_bytes'] / 1e6:.0f} MB",
                f"{plan['bytes'] / 1e6:.0f} MB",
                plan["profiles"],
                f"{plan['seconds']:.0f}",
            ]
            for plan in result["rows"]
        ]
        text += _table("model|graph|ONNX|plan|profiles|seconds to build", rows)
        text += f"\nIn {result['precision']}; {result['built_by']}.\n"
    return text + _from("tensorrt_build")


def recognition() -> str:
    """`benchmarks/tiny.py`: what the tiny model recognises, as `emostream-train table` puts it."""
    return "".join(f"{markdown(result)}\n" for result in _results("tiny")) + _from("tiny")


def recognised() -> str:
    """The same for a reader in a hurry: a row a model, the splits side by side."""
    rows = []
    for result in _results("tiny"):
        test, ood = (result["splits"][split]["rows"] for split in ("test", "ood"))
        for name, found in test.items():
            cells = [
                percent(figures[key], interval=False)
                for figures in (found, ood[name])
                for key in ("uar", "label_first_uar", "claim_support_rate", "cue_recall")
            ]
            rows.append([TITLES.get(name, name), *cells])
    if not rows:
        return _from("tiny")
    names = ["UAR", "live label's UAR", "claims that hold", "cues mentioned"]
    head = "|".join(["model", *names, *(f"{name}, ood" for name in names)])
    return _table(head, rows) + _from("tiny")


def peers() -> str:
    """`benchmarks/peers.py`: the same people, read by ours and by what is used for the same."""
    text = ""
    for result in _results("peers"):
        rows = [
            [name, *(_pair(found[kind]) for kind in ("all", "clear")), found["ms_a_face"]]
            for name, found in result["faces"].items()
        ]
        counts = next(iter(result["faces"].values()))
        head = "|".join(
            ["faces", *(f"{k} ({counts[k]['clips']:,})" for k in ("all", "clear")), "ms a face"]
        )
        text += _table(head, rows) + "\n"
        corpora = {k: v for k, v in result["voices"].items() if k != "ms_a_second"}
        names = list(next(iter(corpora.values())))
        head = "|".join(["voices", *(f"{k} ({v[names[0]]['clips']})" for k, v in corpora.items())])
        text += _table(head, [[n, *(_pair(v[n]) for v in corpora.values())] for n in names])
        times = [f"{name} {ms} ms" for name, ms in result["voices"]["ms_a_second"].items()]
        text += f"\nAccuracy / UAR, %. A second of sound takes {', '.join(times)}, one core.\n"
    return text + _from("peers")


def people() -> str:
    """`benchmarks/small.py`: what the small model recognises of people."""
    rows = []
    for result in _results("small"):
        faces = {f"faces, {kind}": result["faces"][kind] for kind in ("all", "clear")}
        spoken = {
            f"voices, {corpus}, {heard} s heard before": scores
            for heard, corpora in result["voices"].items()
            for corpus, scores in corpora.items()
        }
        rows += [[n, s["clips"], s["accuracy"], s["uar"]] for n, s in (faces | spoken).items()]
    return _table("people|clips|accuracy|UAR", rows) + _from("small")


def small() -> str:
    """`benchmarks/small.py`: where the small model is better and worse, and actors beside the tiny one."""
    text = ""
    for result in _results("small"):
        recall = result["faces"]["recall"]
        text += _table("|".join(["face", *recall]), [["recall", *recall.values()]]) + "\n"
        rows = [[n, s["clips"], s["accuracy"], s["uar"]] for n, s in result["by_sex"].items()]
        text += _table("voices, nothing heard before|clips|accuracy|UAR", rows) + "\n"
        rows = [
            [split, model, s["clips"], s["live_uar"], s["reasoned_uar"], s["supported"]]
            for split, models in result["actors"].items()
            for model, s in models.items()
        ]
        head = "actors|model|clips|live label's UAR|UAR|claims that hold"
        text += _table(head, rows) + "\nPer cent.\n"
    return text + _from("small")


def seeds() -> str:
    """`benchmarks/small.py`: the same figures for every seed, before and after GRPO."""
    text = ""
    for result in _results("small"):
        models = result["seeds"]
        kinds = sorted({name.partition("-")[0] for name in models})
        columns = {}
        for kind in kinds:
            own = {name: figures for name, figures in models.items() if name.startswith(f"{kind}-")}
            columns |= own
            columns[f"{kind}, mean"] = {
                what: round(sum(figures[what] for figures in own.values()) / len(own), 1)
                for what in next(iter(own.values()))
            }
        rows = [
            [what, *(figures[what] for figures in columns.values())]
            for what in next(iter(models.values()))
        ]
        text += _table("|".join(["per cent; UAR of the live label", *columns]), rows)
    return text + _from("small")


def minutes() -> str:
    """`make small`: how long each stage took, from nothing."""
    text = ""
    for result in _results("small"):
        for run in result.get("further_runs", []):
            steps = [[step["step"], step["what"], step["minutes"]] for step in run["recipe"]]
            if "towers" not in (step for step, _, _ in steps):
                continue  # it started from towers that were kept
            # Those that trained side by side are in the minutes of both together as well.
            total = sum(m for step, _, m in steps if not step.endswith(" tower"))
            text += _table("stage|what|minutes", [*steps, ["all", "", round(total)]])
    return text + _from("small")


def reasons() -> str:
    """`benchmarks/small.py`: whether what is said of people's voices is so."""
    rows = []
    for result in _results("small"):
        for heard, found in result["reasons_of_voices"].items():
            cells = [
                "{} ({} to {})".format(found[name]["value"], *found[name]["interval"])
                for name in ("claim_support_rate", "hallucinated_claim_rate", "cue_recall")
            ]
            rows.append([f"{heard} s heard", found["clips"], found["claims_a_clip"], *cells])
    head = "voices|clips|claims a clip|claims that hold|that are wrong|marked cues mentioned"
    return _table(head, rows) + _from("small")


def _pair(scores: Result) -> str:
    return f"{scores['accuracy']} / {scores['uar']}"


def faithful(model: str) -> str:
    """`benchmarks/faithful.py`: what came of each kind of change, then probes and reader."""
    text = ""
    for result in _results(f"faithful_{model}"):
        for split, title in _FAITHFUL_TESTS.items():
            found = result["splits"].get(split)
            if found is None:
                continue
            rows = []
            for group, kinds in (("twins", KINDS), ("edits", EDITS)):
                for kind, rates in ((k, found[group][k]) for k in kinds if k in found[group]):
                    cells = [_share(rates, name) for name in FIGURES]
                    rows.append([f"{group[:-1]}: {kind}", rates["pairs"], *cells])
            head = "changed|pairs|claims that went|claims that stayed|claims that came|label kept|label as told"
            head += "|answer falls by"
            text += f"**{title}**, {found['clips']} clips\n\n" + _table(head, rows) + "\n"
            probes = [
                f"{name} {_share(found['probes'][name], 'accuracy')}"
                for name in ("face", "voice")
                if name in found["probes"]
            ]
            if probes:
                text += f"Probes, the true statement likelier: {', '.join(probes)}.\n\n"
            if "people" in title:  # its texts are of rendered actors
                continue
            read = {name: _share(found["reader"], name) for name in _READER}
            text += f"The reader names from the reasons the model's answer in {read['consistency']} and the truth in "
            text += f"{read['accuracy']}; the answer from another clip's in {read['shuffled']}; the truth from "
            text += f"composed texts in {read['composed']}.\n\n"
        text += "Percent, with 95 % bootstrap intervals over clips.\n"
    return text + _from(f"faithful_{model}")


_FAITHFUL_TESTS = {
    "test": "test",
    "ood": "ood",
    "voices": "people's voices, nothing heard before",
    "voices_known": "people's voices, 60 s heard before",
    "faces": "people's faces",
}
_READER = ("consistency", "accuracy", "shuffled", "composed")


def effect() -> str:
    """`benchmarks/effect.py`: GRPO with the paper's rewards and SFT on labels alone, by set of clips."""
    text = ""
    for result in _results("effect"):
        rows, gains = [], []
        for name, ways in result["found"].items():
            of = result["sets"][name]
            clips = f"{of['clips']:,}" + (f", {of['wrong']:.0%} wrong" if of["wrong"] else "")
            figures = {
                row: [ways[way][split]["rows"][row] for split in ("test", "ood")]
                for way in ways
                for row in ("cold_start", "label_only", way)
            }
            if not rows:
                silent = ", ".join(map(str, result["without_reasons"]["cold_start"]))
                rows.append(["–", "–", "–", *_both_answers(figures["cold_start"]), silent])
            for row in ("label_only", *ways):
                folder = f"{row}_{name}"
                silent = ", ".join(map(str, result["without_reasons"][folder]))
                cells = [result["minutes"][folder], *_both_answers(figures[row]), silent]
                rows.append([clips, _WAYS[row], *cells])
            for way, splits in ways.items():
                ahead = [splits[split]["ahead"]["label_only"] for split in ("test", "ood")]
                gains.append([clips, _WAYS[way], *_both_answers(ahead, sign=True)])
        measures = "test, live label|test, answer|ood, live label|ood, answer"
        text += _table(f"clips with labels|tuned by|minutes|{measures}|no reasons", rows) + "\n"
        text += _table(f"clips with labels|ahead of SFT on labels|{measures}", gains) + "\n"
        text += "UAR in per cent, means over seeds, with 95 % bootstrap intervals over clips and seeds; "
        text += "the second table is in points, paired. Minutes are of a core, of training. "
        text += "The first row is the cold start that all others go on from. "
        text += "The last column counts answers to `test` that give no reasons, for each seed.\n"
    return text + _from("effect")


_WAYS = {
    "label_only": "SFT on labels alone",
    "grpo_paper": "GRPO, groups of 8",
    "grpo_paper_16": "GRPO, groups of 16",
}


def _both_answers(splits: list[Result], *, sign: bool = False) -> list[str]:
    return [
        percent(found[name], sign=sign) for found in splits for name in ("label_first_uar", "uar")
    ]


def rewards() -> str:
    """`benchmarks/effect.py`: what other rewards bring to reasons."""
    return "".join(markdown({"splits": r["rewards"]}) for r in _results("effect")) + _from("effect")


def followed() -> str:
    """`benchmarks/effect.py`: whether reasons follow what is changed, by reward."""
    text = ""
    for result in _results("effect"):
        rows = [
            [
                TITLES[row],
                *(_share(found[kind], name) for name, kinds in _FOLLOWED for kind in kinds),
            ]
            for row, found in result["faithful"].items()
        ]
        head = [f"{kind}, {_WENT[name]}" for name, kinds in _FOLLOWED for kind in kinds]
        text += _table("|".join(["model", *head]), rows)
        pairs = next(iter(result["faithful"].values()))
        text += "\nPercent, with 95 % bootstrap intervals over clips; "
        text += ", ".join(f"{kind} {found['pairs']}" for kind, found in pairs.items())
        text += " pairs, over all seeds.\n"
    return text + _from("effect")


_FOLLOWED = (
    ("sensitivity", ("face_cue", "voice_cue", "face", "voice")),
    ("specificity", ("face_cue", "voice_cue", "take")),
)
_WENT = {"sensitivity": "went", "specificity": "stayed"}


def _share(found: Result, name: str) -> str:
    if found[name] is None:
        return "–"
    low, high = found["intervals"][name]
    return f"{100 * found[name]:.0f} ({100 * low:.0f} to {100 * high:.0f})"


def voices() -> str:
    """`benchmarks/voices.py`: claims about real voices that have the sign of the literature."""
    rows = []
    for result in _results("voices"):
        found = {(r["corpus"], r["label"], r["dimension"]): r for r in result["results"]}
        dimensions = sorted({dimension for _, _, dimension in found} - {"all"})
        asked = [(label, "all") for label in ("all", *result["literature"])]
        for label, dimension in [*asked, *(("all", name) for name in dimensions)]:
            name = label if dimension == "all" else dimension.replace("_", " ")
            entries = [found.get((c, label, dimension)) for c in ("ravdess", "nemo", "ased", "all")]
            rows.append([name, *(_claims_cell(entry) for entry in entries)])
    return _table("of|RAVDESS|nEMO|ASED|all", rows) + _from("voices")


def _claims_cell(entry: Result | None) -> str:
    if entry is None or entry["claims_of_marked"]["share"] is None:
        return "–"
    rate = entry["claims_of_marked"]
    low, high = rate["interval"]
    return f"{100 * rate['share']:.0f} ({100 * low:.0f} to {100 * high:.0f})"


#: Name in a document's marker -> the table.
TABLES: dict[str, Callable[[], str]] = {
    "annotate": annotate,
    "annotate_gpu": annotate_gpu,
    "encoders": encoders,
    "plans": plans,
    "soak": soak,
    "grpo": grpo,
    "live": live,
    "peers": peers,
    "people": people,
    "small": small,
    "reasons": reasons,
    "seeds": seeds,
    "minutes": minutes,
    "model": model,
    "web": web,
    "effect": effect,
    "rewards": rewards,
    "followed": followed,
    "faithful_small": partial(faithful, "small"),
    "faithful_tiny": partial(faithful, "tiny"),
    "voices": voices,
    "recognition": recognition,
    "recognised": recognised,
}


def _beside_floor(row: Result) -> str:
    return f"{_ms(row['p50_ms'])} ({_ms(row['floor_ms'])})"


def _ms(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def _machine(result: Result) -> str:
    machine = result["provenance"]["machine"]
    if machine["gpu"]:
        return str(machine["gpu"]).partition(",")[0]
    return f"{machine['cores']} cores"


def _results(pattern: str) -> Iterator[Result]:
    for path in sorted(RESULTS.glob(f"{pattern}.json")):
        yield json.loads(path.read_text(encoding="utf-8"))


def _table(head: str, rows: list[list[Any]]) -> str:
    names = head.split("|")
    lines = [names, ["---"] * len(names), *rows]
    return "".join("| " + " | ".join(str(cell) for cell in line) + " |\n" for line in lines)


def _from(pattern: str) -> str:
    """Where the figures come from: commits and dates of the results."""
    sources = []
    for path in sorted(RESULTS.glob(f"{pattern}.json")):
        provenance = json.loads(path.read_text(encoding="utf-8"))["provenance"]
        sources.append(f"`{path.name}` ({provenance['date'][:10]}, {provenance['commit'][:10]})")
    return (
        f"\nFrom {', '.join(sources)} in `benchmarks/results`.\n" if sources else "No result yet.\n"
    )


def main() -> int:
    """Rewrite the documents, or check them."""
    late = []
    for document in DOCUMENTS:
        before = document.read_text(encoding="utf-8")
        after = fill(before)
        if after != before:
            late.append(document)
            if "--check" not in sys.argv[1:]:
                document.write_text(after, encoding="utf-8")
    if "--check" in sys.argv[1:] and late:
        names = ", ".join(str(path.relative_to(ROOT)) for path in late)
        print(f"{names}: out of date; run python benchmarks/tables.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
