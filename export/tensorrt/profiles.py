"""Optimization profiles from the shapes that the live path asks for, and which of them serves a batch.

A hop brings one new frame a source, a source that begins brings a whole window, and N sources bring N times as much.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from emostream.model.configuration import EmostreamConfig
from export.onnx.graphs import SMALLEST_CONTEXT, Graph, Shapes, context_frames

#: A new frame is joined to the one before it, and the oldest of its window is joined anew to nothing.
PAIRS_PER_HOP = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """Least, usual and largest shape of each input.

    Attributes:
        least: By input name.
        usual: For which the kernels are chosen.
        most: Whose size the memory has.
    """

    least: Shapes
    usual: Shapes
    most: Shapes

    def as_dict(self) -> dict[str, Any]:
        """For JSON, `{"input": [least, usual, most]}`."""
        return {
            name: [list(self.least[name]), list(self.usual[name]), list(self.most[name])]
            for name in self.least
        }

    def holds(self, shapes: Shapes) -> bool:
        """Whether inputs of these shapes lie within."""
        return all(
            low <= size <= high
            for name, shape in shapes.items()
            for low, size, high in zip(self.least[name], shape, self.most[name], strict=True)
        )


def profiles_for(graph: Graph, config: EmostreamConfig, max_sources: int) -> tuple[Profile, ...]:
    """One profile for a hop, one for a window from scratch, one for the hops of all sources together.

    Larger batches are run in parts.

    Args:
        graph: Which.
        config: Of the checkpoint.
        max_sources: Sources that come together.
    """
    frames = config.num_frames
    hop, window = {
        "vision": (1, frames),
        "join": (PAIRS_PER_HOP, frames),
        "audio": (1, 1),
    }[graph.name]
    most = dict.fromkeys((hop, window, max(window, hop * max_sources)))
    context = context_frames(config, short=False)
    return tuple(
        Profile(
            least=graph.shapes(config, 1, SMALLEST_CONTEXT),
            usual=graph.shapes(config, batch, context),
            most=graph.shapes(config, batch, context),
        )
        for batch in most
    )


def choose(profiles: Sequence[Profile], shapes: Shapes) -> int | None:
    """Index of the first profile that holds these shapes; the first is the tightest."""
    return next((index for index, p in enumerate(profiles) if p.holds(shapes)), None)
