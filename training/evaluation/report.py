"""`eval.json` for people: a page of Markdown and three plots."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_BLUE: Final = "#3b6ea5"
_GREY: Final = "#b8bec6"
_DPI: Final = 130
_CONDITION_NAMES: Final = {
    "both": "video and audio",
    "video": "video only",
    "audio": "audio only",
    "shuffled_audio": "video with another clip's audio",
}


def write_report(result: Mapping[str, Any], folder: str | Path) -> Path:
    """Write report.md, confusion.png, recall.png and reliability.png.

    Args:
        result: The content of eval.json.
        folder: Where to write; made if it is missing.

    Returns:
        The Markdown file.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _save(_confusion_plot(result["confusion"]), folder / "confusion.png")
    _save(_recall_plot(result["recall"], result["uar"]), folder / "recall.png")
    if result["reliability"]:
        _save(_reliability_plot(result["reliability"], result["ece"]), folder / "reliability.png")
    page = folder / "report.md"
    page.write_text("\n".join(markdown(result)) + "\n", encoding="utf-8")
    return page


def markdown(result: Mapping[str, Any]) -> list[str]:
    """Return the page's lines; images are named beside it."""
    lines = [
        f"# {result.get('model', 'Model')} on {result.get('manifest', 'its clips')}",
        "",
        f"{result['clips']} clips, {len(result['labels'])} labels, answers: "
        f"{result['answers'].replace('_', ' ')}.{_skips(result['skipped'])}",
        "",
        *_table(
            ("", "value", "95 % interval"),
            [
                *(
                    (name, _percent(result[key]), _interval(result["intervals"].get(key)))
                    for name, key in (
                        ("WAR", "war"),
                        ("UAR", "uar"),
                        ("format", "format_rate"),
                        ("claims supported", "claim_support_rate"),
                        ("claims hallucinated", "hallucinated_claim_rate"),
                        ("cue recall", "cue_recall"),
                        ("reasonings that cover what is informative", "covered_rate"),
                        ("reasonings that name a label", "label_named_rate"),
                        ("reasonings that say a thing twice", "repetition_rate"),
                        ("reasonings with a malformed statement", "malformed_rate"),
                        ("label-first agrees with reasoned", "agreement"),
                        ("calibration error (ECE)", "ece"),
                    )
                ),
                ("claims a clip", _number(result["claims_a_clip"]), ""),
            ],
        ),
        "",
        "## Recall by class",
        "",
        *_table(
            ("label", "recall", "clips"),
            [
                (label, _percent(value), str(sum(counts)))
                for (label, value), counts in zip(
                    result["recall"].items(), result["confusion"]["counts"], strict=True
                )
            ],
        ),
        "",
        "![Recall by class](recall.png)",
        "",
        "![Confusion matrix](confusion.png)",
    ]
    if result["answers"] == "reasoned":
        first = result["label_first"]
        lines += [
            "",
            f"Label-first scoring alone: WAR {_percent(first['war'])}, UAR {_percent(first['uar'])} "
            f"({_interval(result['intervals']['label_first_uar'])}).",
        ]
    if result["ablation"]:
        lines += ["", "## Modalities (label-first)", "", *_ablation(result)]
    if result["reliability"]:
        lines += ["", "## Calibration (label-first)", "", "![Reliability diagram](reliability.png)"]
    return lines


def _ablation(result: Mapping[str, Any]) -> list[str]:
    conditions = [name for name in _CONDITION_NAMES if name in result["ablation"]]
    rows = [
        (
            _CONDITION_NAMES[name],
            _percent(result["ablation"][name]["war"]),
            _percent(result["ablation"][name]["uar"]),
            _interval(result["ablation"][name]["intervals"]["uar"]),
        )
        for name in conditions
    ]
    lines = _table(("shown", "WAR", "UAR", "95 % interval of UAR"), rows)
    if result["fusion_gain"] is not None:
        lines += [
            "",
            f"Fusion gains {100 * result['fusion_gain']:+.1f} points of UAR "
            f"({_interval(result['intervals']['fusion_gain'])}) over the better single modality "
            f"({result['ablation']['clips']} clips).",
        ]
    return lines


def _skips(skipped: Mapping[str, int]) -> str:
    if not skipped:
        return ""
    return " Skipped: " + ", ".join(f"{count} {reason}" for reason, count in skipped.items()) + "."


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(header)} |",
        f"|{'|'.join(['---'] + ['---:'] * (len(header) - 1))}|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _interval(bounds: Sequence[float] | None) -> str:
    return "" if bounds is None else f"{100 * bounds[0]:.1f} to {100 * bounds[1]:.1f}"


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=_DPI)


def _confusion_plot(confusion: Mapping[str, Any]) -> Figure:
    counts = np.array(confusion["counts"], float)
    columns = list(confusion["columns"])
    # Answers outside the labels get a column only where there are any.
    shown = [i for i in range(len(columns)) if i < len(counts) or counts[:, i].any()]
    counts, columns = counts[:, shown], [columns[i] for i in shown]
    support = counts.sum(1, keepdims=True)
    share = np.divide(counts, support, out=np.zeros_like(counts), where=support > 0)
    size = 0.62 * max(len(columns), 4)
    figure, axes = _figure(size + 2.0, 0.62 * max(len(counts), 4) + 1.6)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=40, ha="right")
    axes.set_yticks(range(len(counts)), [str(row) for row in confusion["rows"]])
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    for (row, column), value in np.ndenumerate(share):
        if counts[row, column]:
            axes.text(
                column,
                row,
                f"{100 * value:.0f}",
                ha="center",
                va="center",
                color="white" if value > 0.55 else "black",
                fontsize=9,
            )
    axes.set_title("Share of each true class, %")
    figure.colorbar(image, ax=axes, fraction=0.05, format=lambda v, _: f"{100 * v:.0f}")
    return figure


def _recall_plot(recall: Mapping[str, float | None], uar: float) -> Figure:
    labels = list(recall)
    figure, axes = _figure(0.8 * max(len(labels), 4) + 1.5, 3.4)
    values = [100 * (value or 0.0) for value in recall.values()]
    bars = axes.bar(labels, values, color=_BLUE, width=0.7)
    for bar, value in zip(bars, recall.values(), strict=True):
        inside = value is not None and value > 0.1  # above the bar it would run into the UAR line
        axes.annotate(
            "no clips" if value is None else f"{100 * value:.0f}",
            (bar.get_x() + bar.get_width() / 2, bar.get_height()),
            xytext=(0, -4 if inside else 2),
            textcoords="offset points",
            ha="center",
            va="top" if inside else "bottom",
            color="white" if inside else "black",
            fontsize=9,
        )
    axes.axhline(100 * uar, color="black", linewidth=1, linestyle="--", zorder=0)
    axes.annotate(
        f"UAR {100 * uar:.1f}",
        (1.0, 100 * uar),
        xycoords=("axes fraction", "data"),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
        annotation_clip=False,
    )
    axes.set_ylim(0, 108)
    axes.set_ylabel("recall, %")
    axes.tick_params(axis="x", rotation=30)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _reliability_plot(bins: Sequence[Mapping[str, float]], ece: float) -> Figure:
    figure, axes = _figure(4.4, 4.2)
    axes.plot([0, 100], [0, 100], color=_GREY, linestyle="--", linewidth=1, label="calibrated")
    counts = np.array([b["count"] for b in bins], float)
    axes.plot(
        [100 * b["confidence"] for b in bins],
        [100 * b["accuracy"] for b in bins],
        color=_BLUE,
        linewidth=1.2,
    )
    axes.scatter(
        [100 * b["confidence"] for b in bins],
        [100 * b["accuracy"] for b in bins],
        s=15 + 160 * counts / counts.max(),
        color=_BLUE,
        alpha=0.8,
        clip_on=False,
        label="bin (area: clips)",
    )
    axes.set(xlim=(0, 103), ylim=(0, 103), xlabel="confidence, %", ylabel="accuracy, %")
    axes.set_title(f"Label-first scores, ECE {100 * ece:.1f} %")
    axes.legend(loc="upper left", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
