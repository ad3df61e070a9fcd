"""Both speeds of the live model behind one object: labels of windows, and reasoning on request.

recognizer = Recognizer(model, processor)
results = recognizer.recognize(windows)       # every hop
recognizer.start_reasoning(results[0])        # now and then, before the next hop
for step in recognizer.reason(): ...          # one token a call, as long as there is time
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from emostream.errors import InputError
from emostream.inference.encoders import Encoders, TorchEncoders
from emostream.inference.prefill import Prefilled, WindowPrefill
from emostream.inference.reasoning import ReasoningDecoder, ReasoningStep
from emostream.inference.scoring import candidate_tree
from emostream.inference.streaming import MediaTokens, MediaWindow, StreamingEncoder
from emostream.inference.voices import Voices, voices_of
from emostream.labels import DEFAULT_LABELS
from emostream.model.modeling import EmostreamForCausalLM
from emostream.model.processor import EmostreamProcessor


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """Seconds that a call spent on all its windows together.

    Attributes:
        encode_s: Preprocessing, vision, connector and audio.
        prefill_s: Language model over prompts and candidates.
        decode_s: Candidate scores.
    """

    encode_s: float
    prefill_s: float
    decode_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Recognition:
    """Label scores of one window.

    Attributes:
        source: Whose window it was.
        scores: Probability of each label, in the order of the label list.
        label: The likeliest.
        timing: Of the call that made it.
        baseline_s: Seconds of the person's speech that the sound is standardised by; None where nobody is followed.
        prefilled: Where its prompt lies, for `Recognizer.start_reasoning`.
    """

    source: str
    scores: dict[str, float]
    label: str
    timing: Timing
    prefilled: Prefilled
    baseline_s: float | None = None


class Recognizer:
    """Streaming inference over any number of sources with one model.

    Args:
        model: From `load_model`.
        processor: Likewise.
        labels: Label list to score.
        spellings: Further spellings of a label, whose probabilities are added to its own.
        instruction: Question of the prompt; the processor's if None.
        encoders: What runs the towers; the model's own modules if None.
        slots: Reasoned answers at once.
        max_new_tokens: Longest reasoned answer.
        voices: What is known of the people of a model whose audio tower is standardised; strangers if None.

    Attributes:
        slots: As given.
        runs_on: What runs the encoders, for people.
        most_samples: Sound that the model hears at a time, 16 kHz samples; of more, the newest.
        config: The model's.
        voices: As given, or anew; None for a model that standardises no voices.
    """

    def __init__(
        self,
        model: EmostreamForCausalLM,
        processor: EmostreamProcessor,
        *,
        labels: Sequence[str] = DEFAULT_LABELS,
        spellings: Mapping[str, Sequence[str]] | None = None,
        instruction: str | None = None,
        encoders: Encoders | None = None,
        slots: int = 8,
        max_new_tokens: int = 256,
        voices: Voices | None = None,
    ):
        instruction = instruction or processor.instruction
        style, tokenizer = model.config.answer_style, processor.tokenizer
        tree = candidate_tree(tokenizer, labels, style=style, spellings=spellings)
        self._tree = tree.to(model.device)
        with torch.inference_mode():
            gate_3 = model.model.gate(*processor.gate_inputs(instruction))[0]
        encoders = encoders or TorchEncoders(model)
        self.runs_on = encoders.description
        self.voices = voices or voices_of(model)
        self._encoder = StreamingEncoder(encoders, processor, gate_3, self.voices)
        self._prefill = WindowPrefill(model, processor, self._tree, instruction)
        self._reasoning = ReasoningDecoder(
            model,
            tokenizer,
            tree.labels,
            slots=slots,
            max_new_tokens=max_new_tokens,
            bare=style == "bare",
        )
        self._lm_head = model.lm_head
        self._temperature = model.config.label_temperature
        self._on_gpu = model.device.type == "cuda"
        self.slots = slots
        self.most_samples = processor.context_samples()
        self.config = model.config

    @torch.inference_mode()
    def warm_up(self, *, num_frames: int, audio_samples: int, sources: int = 1) -> None:
        """Run both speeds once on noise, so that the first window pays for no initialisation.

        Args:
            num_frames: Frames of the windows to come.
            audio_samples: Their samples.
            sources: Largest batch; on a GPU every smaller one is captured too, for each set of modalities.
        """
        noise = np.random.default_rng(0)
        frames = tuple(noise.integers(0, 256, (num_frames, 64, 64, 3), dtype=np.uint8))
        audio = noise.uniform(-0.1, 0.1, audio_samples).astype(np.float32)

        def windows(count: int, first: int, video: bool, sound: bool) -> list[MediaWindow]:
            keys = tuple(range(first, first + num_frames))
            return [
                MediaWindow(
                    source=f"warm-up {index}",
                    keys=keys if video else (),
                    frames=frames if video else (),
                    audio=audio if sound else None,
                )
                for index in range(count)
            ]

        sizes = range(1, sources + 1) if self._on_gpu else (sources,)
        for size in sizes:
            for video, sound in ((True, True), (True, False), (False, True)):
                results = self.recognize(windows(size, 0, video, sound))
                if video and sound:
                    if self._on_gpu:  # a hop's batches are other graphs than a whole window's
                        results = self.recognize(windows(size, 1, video, sound))
                    for result in results[: self.slots]:
                        self.start_reasoning(result)
                    self.reason()
                for result in results:
                    self.forget(result.source)

    @property
    def labels(self) -> tuple[str, ...]:
        """The label list."""
        return self._tree.labels

    @property
    def encoder(self) -> StreamingEncoder:
        """The streaming encoder, for its counters."""
        return self._encoder

    def _synchronize(self) -> None:
        if self._on_gpu:
            torch.cuda.synchronize()

    @torch.inference_mode()
    def recognize(self, windows: Sequence[MediaWindow]) -> list[Recognition]:
        """Score the labels of each window; all of them share every network's pass.

        Args:
            windows: Of any sources; several of one source oldest first.
        """
        if not windows:
            return []
        begun = time.perf_counter()
        tokens = self._encoder.encode(windows)
        self._synchronize()
        return self.read([window.source for window in windows], tokens, begun_s=begun)

    @torch.inference_mode()
    def read(
        self, sources: Sequence[str], tokens: Sequence[MediaTokens], *, begun_s: float | None = None
    ) -> list[Recognition]:
        """Score the labels of windows that are encoded already, as `recognize` does behind its encoders.

        Args:
            sources: Whose each window is.
            tokens: Its media tokens.
            begun_s: `time.perf_counter()` when their encoding began; now if None.
        """
        if not sources:
            return []
        encoded = time.perf_counter()
        begun = encoded if begun_s is None else begun_s
        hidden_BRH, prefilled = self._prefill.run(tokens)
        self._synchronize()
        filled = time.perf_counter()
        log_probs_BRV = self._lm_head(hidden_BRH).float().log_softmax(-1)
        scores = self._tree.scores(log_probs_BRV, self._temperature).tolist()
        timing = Timing(
            encode_s=encoded - begun,
            prefill_s=filled - encoded,
            decode_s=time.perf_counter() - filled,
        )
        return [
            Recognition(
                source=source,
                scores=(named := dict(zip(self.labels, row, strict=True))),
                label=max(named, key=named.__getitem__),
                timing=timing,
                prefilled=place,
                baseline_s=media.baseline_s,
            )
            for source, row, place, media in zip(sources, scores, prefilled, tokens, strict=True)
        ]

    def start_reasoning(self, recognition: Recognition) -> None:
        """Begin a reasoned answer on a window just recognized.

        Raises:
            InputError: A later `recognize` has overwritten its KV, its source has an answer, or no slot is free.
        """
        if not self._prefill.is_current(recognition.prefilled):
            raise InputError(
                f"reasoning: the window of {recognition.source} is no longer in the cache; start before the next "
                "recognize."
            )
        self._reasoning.start(recognition.source, recognition.prefilled)

    def reason(self) -> list[ReasoningStep]:
        """One more token of every reasoned answer under way; empty when there is none."""
        return self._reasoning.step()

    @property
    def reasoning_sources(self) -> list[str]:
        """Sources with an answer under way."""
        return [str(key) for key in self._reasoning.active]

    def stop_reasoning(self, source: str) -> None:
        """Give up a source's answer, if it has one."""
        self._reasoning.stop(source)

    def forget(self, source: str) -> None:
        """Drop all that is remembered of a source."""
        self._reasoning.stop(source)
        self._encoder.forget(source)
