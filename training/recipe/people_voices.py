"""Training of an audio tower on the voices of people.

The tower starts from one that heard rendered voices, and goes on hearing them: what it must tell of actors is what they
did with their voices. What it must tell of people is the emotion, each corpus by a head of its own among the labels
that it has, and the course of the pitch, which keeps small corpora from being learned by heart. Its features are
standardised, over everybody or over the person who speaks, who was heard for a while or not at all. Heads are thrown
away.

Shape suffixes: B windows, F mel bands, M mel frames, S = M/2 encoder steps, A pooled steps, D tower width, E emotions.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emostream.labels import DEFAULT_LABELS
from emostream.model.modeling import EmostreamForCausalLM, EmostreamModel
from emostream.model.towers import AUDIO_POOL, pool_audio
from emostream.people.voice_baseline import PRIOR_S, STEP_S, moments, speech_steps
from training.evaluation.probe import uar
from training.recipe.loop import run_steps
from training.recipe.tower_augment import augment_mel
from training.recipe.tower_data import NO_LABEL, TRACKS, Arrays
from training.recipe.towers import VOICED
from training.recipe.voice_data import Talks, Voices, corpus_of, whisper_scale
from training.synth.acting import PROSODY

#: Frames of a training window, and of those at the end of training, which are as long as a live one.
FRAMES: Final = (300, 400)
LONG_FROM: Final = 0.85
#: Share of the steps in which the heads alone learn.
HEADS_FIRST: Final = 0.08
#: Speakers of a batch, and windows of each.
SPEAKERS: Final = 10
WINDOWS: Final = 4
#: Windows of rendered actors beside them.
ACTED: Final = 16
#: Mel frames that an audio token has.
TOKEN_FRAMES: Final = 2 * AUDIO_POOL

Statistics = tuple[Tensor, Tensor, float]
"""Mean (D,), variance (D,), and seconds of speech that they are of."""


def begin_voices(model: EmostreamForCausalLM, heard: EmostreamForCausalLM) -> None:
    """Give a model's audio tower what another has; layers that the other lacks begin as if they were not there."""
    ours: Any = model.model.audio_tower
    theirs = heard.model.audio_tower
    ours.load_state_dict(theirs.state_dict(), strict=False)
    encoder, prosody = ours.audio_tower["encoder"], ours.audio_tower["prosody"]
    for weight in prosody.parameters():  # fitted behind the training: `voice_pitch`
        nn.init.zeros_(weight)
    layers = heard.config.audio_config.encoder_layers
    for layer in encoder.layers[layers:]:
        nn.init.zeros_(layer.self_attn.out_proj.weight)
        nn.init.zeros_(layer.fc2.weight)


class VoiceProbe(nn.Module):
    """An audio tower with linear heads on its standardised features.

    Args:
        model: That holds the tower.
        corpora: Names of those that have a head.
        speakers: Speakers of whom statistics are kept.
    """

    of_mean: Tensor
    of_variance: Tensor
    of_heard_s: Tensor
    everybody: Tensor

    def __init__(self, model: EmostreamModel, corpora: Sequence[str], speakers: int):
        super().__init__()
        width = model.config.audio_hidden_size
        self.tower = model.audio_tower
        self.dropout = nn.Dropout(0.3)
        self.corpora = tuple(corpora)
        self.emotion = nn.Linear(2 * width, len(self.corpora) * len(DEFAULT_LABELS))
        self.pitch = nn.Linear(width, 2)
        self.acted = nn.Linear(2 * width, len(DEFAULT_LABELS))
        self.prosody = nn.Linear(2 * width, len(PROSODY))
        self.tracks = nn.Linear(width, len(TRACKS))
        for name, shape in (("of_mean", width), ("of_variance", width)):
            self.register_buffer(name, torch.zeros(speakers, shape))
        self.register_buffer("of_heard_s", torch.zeros(speakers))
        self.register_buffer(
            "everybody", torch.zeros(3, width)
        )  # mean, variance; [2, 0] is whether there is one

    @property
    def baseline(self) -> Any:
        """The tower's own statistics."""
        return self.tower.audio_tower["baseline"]

    def blended(self, person: Statistics | None) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (D,): everybody's at first, the person's the longer he was heard."""
        mean, variance = self.baseline.mean, self.baseline.std**2
        if person is not None:
            weight = person[2] / (person[2] + PRIOR_S)
            mean = torch.lerp(mean, person[0], weight)
            variance = torch.lerp(variance, person[1], weight)
        return mean, variance.sqrt().clamp(min=1e-3)

    def answer(self, x_BSD: Tensor, weight_BS: Tensor) -> Tensor:
        """Emotion logits (B, corpora, E) of standardised features."""
        pooled = self.dropout(_pooled(x_BSD.float(), weight_BS))
        logits: Tensor = self.emotion(pooled).float()
        return logits.unflatten(1, (len(self.corpora), -1))

    def loss(
        self, batch: Mapping[str, Tensor], acted: Mapping[str, Tensor], frozen: bool
    ) -> dict[str, Tensor]:
        """Each term by name.

        Args:
            batch: Of `Talks.draw`, with some more frames than a window has.
            acted: Of `tower_data.batches`: windows of rendered actors.
            frozen: Whether the heads alone learn.
        """
        mel, pitch = augment_talk(batch["mel"].transpose(1, 2), batch["pitch"])
        mel = whisper_scale(mel)
        people, frames = len(mel), mel.shape[-1]
        token = int(torch.randint(acted["tracks"].shape[1] - frames // TOKEN_FRAMES + 1, ()))
        begin = token * TOKEN_FRAMES
        mel = torch.cat([mel, acted["mel"][..., begin : begin + frames].float()])
        weight_BS = speech_steps(mel)
        with torch.set_grad_enabled(not frozen):
            x_BSD = self.tower.encode(augment_mel(mel)).float()
        heard, weight = x_BSD[:people], weight_BS[:people]
        self._learn_statistics(heard.detach(), weight, batch["speaker"])
        parts = []
        for first in range(0, people, WINDOWS):
            mean, std = self.blended(self._person(heard.detach(), weight, batch, first))
            parts.append((heard[first : first + WINDOWS] - mean) / std)
        x_BSD_people = torch.cat(parts)
        logits = self.answer(x_BSD_people, weight)[torch.arange(people), batch["corpus"]]
        logits = logits.masked_fill(~batch["known"], -1e4)
        smooth = batch["known"].float() / batch["known"].sum(1, keepdim=True)
        log_p = logits.log_softmax(1)
        right = -log_p.gather(1, batch["label"][:, None]).mean()
        spread = -(smooth * log_p.masked_fill(~batch["known"], 0)).sum(1).mean()
        found = self.pitch(pool_audio(x_BSD_people))
        # A token of 60 ms has the pitch of its six mel frames, where there is one.
        voiced_BA = F.avg_pool1d(pitch[..., 1][:, None], TOKEN_FRAMES)[:, 0]
        octave_BA = F.avg_pool1d((pitch[..., 0] * pitch[..., 1])[:, None], TOKEN_FRAMES)[:, 0]
        octave_BA = octave_BA / voiced_BA.clamp(min=1e-3)
        told_BA = (voiced_BA > 0.5).float()
        error = F.smooth_l1_loss(found[..., 0], octave_BA * 2, reduction="none")
        mean, std = self.blended(None)
        tracks = acted["tracks"][:, token : token + frames // TOKEN_FRAMES]
        return {
            "emotion": 0.9 * right + 0.1 * spread,
            "pitch": (error * told_BA).sum() / told_BA.sum().clamp(min=1)
            + F.smooth_l1_loss(found[..., 1], voiced_BA),
        } | self._acted_loss((x_BSD[people:] - mean) / std, weight_BS[people:], acted, tracks)

    def _acted_loss(
        self, x_BSD: Tensor, weight_BS: Tensor, acted: Mapping[str, Tensor], tracks_BAR: Tensor
    ) -> dict[str, Tensor]:
        """What rendered actors did with their voices."""
        pooled = self.dropout(_pooled(x_BSD, weight_BS))
        audible = (acted["voice"] != NO_LABEL).float()
        error_B = F.smooth_l1_loss(
            self.prosody(pooled).float(), acted["prosody"], reduction="none"
        ).mean(-1)
        found = self.tracks(pool_audio(x_BSD)).float()
        voiced_BA = (tracks_BAR[..., 2] > VOICED) * audible[:, None]
        shape = F.smooth_l1_loss(found[..., :2], tracks_BAR[..., :2] * 2, reduction="none").mean(-1)
        terms = {
            "prosody": (error_B * audible).sum() / audible.sum().clamp(min=1),
            "tracks": 0.5 * (shape * voiced_BA).sum() / voiced_BA.sum().clamp(min=1),
        }
        if audible.any():
            logits = self.acted(pooled).float()
            terms["acted"] = 0.3 * F.cross_entropy(logits, acted["voice"], ignore_index=NO_LABEL)
        return terms

    @torch.inference_mode()
    def acting(self, shards: Sequence[Arrays]) -> dict[str, float]:
        """UAR (%) of what voices of rendered actors express, and correlation of their prosody."""
        wanted, guessed, prosody = [], [], []
        for shard in shards:
            for first in range(0, len(shard["label"]), 50):
                mel = torch.from_numpy(np.array(shard["mel"][first : first + 50], np.float32))
                pooled = _pooled(self.tower(mel).float(), speech_steps(mel))
                guessed.append(self.acted(pooled).argmax(-1))
                prosody.append(self.prosody(pooled))
            wanted.append(torch.from_numpy(np.array(shard["voice"])))
        known = (labels := torch.cat(wanted)) != NO_LABEL
        target = torch.from_numpy(np.concatenate([np.array(s["prosody"]) for s in shards]))
        pairs = torch.stack([torch.cat(prosody)[known].flatten(), target[known].flatten()])
        return {
            "actors_uar": round(
                100 * uar(labels[known].numpy(), torch.cat(guessed)[known].numpy()), 1
            ),
            "actors_prosody_r": round(float(torch.corrcoef(pairs)[0, 1]), 3),
        }

    def _learn_statistics(self, x_BSD: Tensor, weight_BS: Tensor, speaker_B: Tensor) -> None:
        """Follow everybody's statistics, and each speaker's, as the tower changes."""
        now = torch.stack(moments(x_BSD, weight_BS))
        kept = 0.98 if self.everybody[2, 0] else 0.0
        self.everybody[:2] = torch.lerp(now, self.everybody[:2], kept)
        self.everybody[2] = 1
        self.baseline.mean.copy_(self.everybody[0])
        self.baseline.std.copy_(self.everybody[1].sqrt().clamp(min=1e-3))
        for begin in range(0, len(x_BSD), WINDOWS):
            who, part = int(speaker_B[begin]), slice(begin, begin + WINDOWS)
            mean, variance = moments(x_BSD[part], weight_BS[part])
            kept = 0.8 if self.of_heard_s[who] else 0.0
            self.of_mean[who] = torch.lerp(mean, self.of_mean[who], kept)
            self.of_variance[who] = torch.lerp(variance, self.of_variance[who], kept)
            heard_s = float(weight_BS[part].sum()) * STEP_S
            self.of_heard_s[who] = min(120.0, float(self.of_heard_s[who]) + heard_s)

    def _person(
        self, x_BSD: Tensor, weight_BS: Tensor, batch: Mapping[str, Tensor], begin: int
    ) -> Statistics | None:
        """What is known of a speaker: nothing, what this batch has of him, or all that he ever said."""
        draw = float(torch.rand(()))
        if draw < 0.4:
            return None
        if draw < 0.6:
            count = int(torch.randint(1, WINDOWS + 1, ()))
            chosen = begin + torch.randperm(WINDOWS)[:count]
            weights = weight_BS[chosen]
            return (*moments(x_BSD[chosen], weights), float(weights.sum()) * STEP_S)
        who = int(batch["speaker"][begin])
        return self.of_mean[who], self.of_variance[who], float(self.of_heard_s[who])

    @torch.inference_mode()
    def features(self, voices: Voices, index: int) -> tuple[Tensor, Tensor]:
        """(W, S, D) features of an utterance and their (W, S) weights; windows of 4 s, one every 2 s."""
        mel_FM = torch.from_numpy(voices.mel[voices.of(index)].astype(np.float32)).T
        frames = min(FRAMES[1], mel_FM.shape[1] // 2 * 2)
        ends = range(frames, mel_FM.shape[1] + 1, FRAMES[1] // 2)
        mel = whisper_scale(torch.stack([mel_FM[:, end - frames : end] for end in ends]))
        return self.tower.encode(mel).float(), speech_steps(mel)

    @torch.inference_mode()
    def scores(
        self,
        voices: Voices,
        found: Mapping[int, tuple[Tensor, Tensor]],
        heard_s: float,
    ) -> tuple[Tensor, Tensor]:
        """(N, E) logits of utterances, and their labels.

        Args:
            voices: That hold them.
            found: Which, and what `features` gives of each.
            heard_s: Speech of each speaker that was heard before, drawn from all his utterances; 0 for none.
        """
        people: dict[str, list[int]] = {}
        for index in found:
            people.setdefault(str(voices.rows[index].actor), []).append(index)
        rng = np.random.default_rng(0)
        logits = torch.zeros(len(found), len(DEFAULT_LABELS))
        places = {index: place for place, index in enumerate(found)}
        for own in people.values():
            for index in own:
                others = [int(other) for other in rng.permutation(own) if other != index]
                person = heard(found, others, heard_s) if heard_s else None
                mean, std = self.blended(person)
                x_WSD, weight_WS = found[index]
                head = self.corpora.index(corpus_of(voices.rows[index]))
                answers = self.answer((x_WSD - mean) / std, weight_WS)
                logits[places[index]] = answers[:, head].mean(0)
        labels = [DEFAULT_LABELS.index(str(voices.rows[index].label)) for index in found]
        return logits, torch.tensor(labels)


def _pooled(x_BSD: Tensor, weight_BS: Tensor) -> Tensor:
    """(B, 2 D) mean and standard deviation over the steps that hold speech."""
    share_BS1 = (weight_BS / weight_BS.sum(1, keepdim=True).clamp(min=1))[..., None]
    mean_BD = (x_BSD * share_BS1).sum(1)
    variance_BD = ((x_BSD - mean_BD[:, None]) ** 2 * share_BS1).sum(1)
    return torch.cat([mean_BD, (variance_BD + 1e-4).sqrt()], 1)


def heard(
    found: Mapping[int, tuple[Tensor, Tensor]], others: Sequence[int], heard_s: float
) -> Statistics | None:
    """Statistics of the first of some utterances, as many as make `heard_s` seconds of speech."""
    parts, seconds = [], 0.0
    for index in others:
        if seconds >= heard_s:
            break
        x_WSD, weight_WS = found[index]
        parts.append((x_WSD.flatten(0, 1), weight_WS.flatten()))
        seconds += float(weight_WS.sum()) * STEP_S
    if not parts:
        return None
    x, weight = (torch.cat(tensors)[None] for tensors in zip(*parts, strict=True))
    return (*moments(x, weight), seconds)


def augment_talk(mel_BFM: Tensor, pitch_BM2: Tensor) -> tuple[Tensor, Tensor]:
    """Tempo, height of the voice, microphone, room and noise, on the logarithm of power.

    Args:
        mel_BFM: log10 of power, with an eighth more frames than come back.
        pitch_BM2: As in `Voices`.

    Returns:
        (B, F, M') and (B, M', 2), M' even.
    """
    batch, bands, given = mel_BFM.shape
    frames = given * 8 // 9 // 2 * 2
    tempo = 0.9 + 0.2 * torch.rand(batch)
    height = 0.93 + 0.14 * torch.rand(
        batch
    )  # below 1 kHz mel bands are even in Hz: a factor of all frequencies
    # Where in what is given each place of the result lies, in [-1, 1].
    at_M = torch.arange(frames) / (given - 1) * 2
    start_B = torch.rand(batch) * (2 - 2 * (frames - 1) / (given - 1) * tempo).clamp(min=0)
    x_BM = start_B[:, None] + tempo[:, None] * at_M - 1
    y_BF = torch.arange(bands) / (bands - 1) * 2 / height[:, None] - 1
    grid = torch.stack(
        [x_BM[:, None].expand(-1, bands, -1), y_BF[..., None].expand(-1, -1, frames)], -1
    )
    mel = F.grid_sample(mel_BFM[:, None], grid, padding_mode="border", align_corners=True)[:, 0]
    line = torch.stack([x_BM, torch.zeros_like(x_BM)], -1)[:, None]
    pitch = F.grid_sample(
        pitch_BM2.transpose(1, 2)[:, :, None],
        line,
        mode="nearest",
        padding_mode="border",
        align_corners=True,
    )[:, :, 0].transpose(1, 2)
    pitch = torch.stack([pitch[..., 0] + torch.log2(height)[:, None], pitch[..., 1]], -1)
    octaves = torch.linspace(0, 1, bands)
    for k in range(1, 4):
        wave_BF = torch.cos(math.pi * (k * octaves + torch.rand(batch, 1)))
        mel = mel + 0.15 * (torch.randn(batch, 1) * wave_BF)[..., None]
    for index in torch.nonzero(torch.rand(batch) < 0.2)[:, 0].tolist():
        mel[index] = _reverberated(mel[index])
    noisy = torch.nonzero(torch.rand(batch) < 0.35)[:, 0]
    if len(noisy):
        level = mel[noisy].amax((1, 2), keepdim=True) - 1.5 - 2 * torch.rand(len(noisy), 1, 1)
        tilt = (torch.rand(len(noisy), 1, 1) - 0.7) * 2 * octaves[:, None]
        noise = level + tilt + 0.2 * torch.randn(len(noisy), bands, frames)
        mel[noisy] = torch.logaddexp(mel[noisy] * math.log(10), noise * math.log(10)) / math.log(10)
    return mel, pitch


def _reverberated(mel_FM: Tensor) -> Tensor:
    """Power that dies away over 0.2 to 0.8 s behind each frame."""
    frames = 60
    decay_s = 0.2 + 0.6 * float(torch.rand(()))
    tail = 10 ** (-6 * 0.01 * torch.arange(frames) / decay_s)
    tail[1:] *= 0.3 * float(torch.rand(()))
    power = F.pad(10 ** mel_FM[:, None], (frames - 1, 0))
    return F.conv1d(power, tail.flip(0)[None, None])[:, 0].clamp(min=1e-10).log10()


def judge_voices(
    probe: VoiceProbe, voices: Voices, chosen: Sequence[int], heard_s: Sequence[float]
) -> dict[str, float]:
    """Accuracy and UAR (%) of each corpus among the labels that it has, by how long the speaker was heard before."""
    out: dict[str, float] = {}
    corpora = sorted({corpus_of(voices.rows[index]) for index in chosen})
    for corpus in corpora:
        found_in = {
            index: probe.features(voices, index)
            for index in chosen
            if corpus_of(voices.rows[index]) == corpus
        }
        for seconds in heard_s:
            logits, wanted = probe.scores(voices, found_in, seconds)
            absent = [k for k in range(len(DEFAULT_LABELS)) if k not in set(wanted.tolist())]
            logits = logits.index_fill(1, torch.tensor(absent, dtype=torch.long), -math.inf)
            found = logits.argmax(1)
            name = f"{corpus}_{seconds:g}s"
            out[f"{name}_accuracy"] = round(100 * float((found == wanted).float().mean()), 1)
            out[f"{name}_uar"] = round(100 * uar(wanted.numpy(), found.numpy()), 1)
    return out


def train_voices(
    model: EmostreamForCausalLM,
    voices: Voices,
    train: Sequence[int],
    validation: Sequence[int],
    actors: Mapping[str, list[Arrays]],
    *,
    steps: int,
    learning_rate: float,
    seed: int,
    folder: Path,
    say: Callable[[str], None],
) -> VoiceProbe:
    """Train the tower in place; returns it with its heads.

    Args:
        model: Whose audio tower is `standardised`.
        voices: Utterances of everybody.
        train: Which of them to learn from.
        validation: Which are for the log.
        actors: Rendered examples, of `train` and `validation`.
        steps: In all.
        learning_rate: Its highest.
        seed: Of the heads, the draws and the changes to sound.
        folder: For the log, and the state that an interrupted run goes on from.
        say: Told of progress.

    Raises:
        EmostreamError: The loss is no longer finite.
    """
    torch.manual_seed(seed)
    talks = Talks(voices, train, seed)
    encoder: Any = model.model.audio_tower.audio_tower["encoder"]
    encoder.config._attn_implementation = "eager"
    probe = VoiceProbe(model.model, talks.corpora, len(talks.speakers))
    probe.requires_grad_(True)
    probe.tower.audio_tower["prosody"].requires_grad_(False)
    places = [(s, i) for s, shard in enumerate(actors["train"]) for i in range(len(shard["label"]))]

    def acted() -> dict[str, Tensor]:
        chosen = [places[int(k)] for k in torch.randint(len(places), (ACTED,))]
        return {
            name: torch.from_numpy(np.stack([actors["train"][s][name][i] for s, i in chosen]))
            for name in ("mel", "voice", "prosody", "tracks")
        }

    def losses(step: int) -> dict[str, Tensor]:
        # All draws come from torch's generator, so that a run that goes on sees what it would have seen.
        talks.rng = np.random.default_rng(int(torch.randint(2**31, ())))
        frames = FRAMES[step > LONG_FROM * steps] * 9 // 8 + 2
        batch = talks.draw(SPEAKERS, WINDOWS, frames)
        return probe.loss(batch, acted(), step <= HEADS_FIRST * steps)

    def validate() -> dict[str, float]:
        scores = judge_voices(probe, voices, validation, (0.0, 60.0))
        return scores | probe.acting(actors["validation"])

    run_steps(
        probe,
        losses,
        validate,
        name="voices",
        steps=steps,
        learning_rate=learning_rate,
        log=folder / "voices.jsonl",
        say=say,
        validate_every=400,
        state=folder / "voices.pt",
    )
    return probe.eval()
