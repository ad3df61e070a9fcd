"""Says when GRPO has nothing to learn from: groups whose answers all earn the same have no better answer to prefer."""

import logging
from typing import Any, Final

from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

logger = logging.getLogger(__name__)

ALIKE: Final = "groups_alike"
"""Key of the trainer's log: the share of groups whose answers all earned the same."""

STRETCH: Final = 10
"""Steps without any difference after which the user is told."""

_NO_DIFFERENCE: Final = 1e-3  # what rounding leaves of an advantage, divided by a deviation of 1e-4


def share_alike(advantages: Tensor, group: int) -> Tensor:
    """The share, (1,), of groups without an advantage, of advantages (B,) that lie group by group."""
    largest = advantages.view(-1, group).abs().amax(1)
    return (largest < _NO_DIFFERENCE).float().mean()[None]


class WatchSignal(TrainerCallback):
    """Warns once when no group's rewards have differed for `STRETCH` steps, or in all of a shorter run."""

    def __init__(self) -> None:
        self._alike = self._seen = 0
        self._told = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Count from here."""
        self._seen = state.global_step

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Count the steps since the last log, if none of their groups differed."""
        share = (logs or {}).get(ALIKE)
        if share is None:
            return
        steps = state.global_step - self._seen
        self._alike = self._alike + steps if float(share) >= 1 else 0
        self._seen = state.global_step
        if self._alike >= STRETCH:
            self._tell(state)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Tell of a short run that was alike at its end."""
        if self._alike:
            self._tell(state)

    def _tell(self, state: TrainerState) -> None:
        if state.is_world_process_zero and not self._told:
            logger.warning(
                "in the last %d steps all answers of each group earned the same, so nothing was learned; train on "
                "reasoned answers first (emostream-train sft), sample warmer (temperature) or longer "
                "(max_completion_length), or choose other rewards",
                self._alike,
            )
        self._told = True
