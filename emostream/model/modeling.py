"""The audio-visual language model as an ordinary transformers CausalLM.

Media features are spliced into the prompt inside the backbone, at positions that the processor recorded, so `Trainer`,
TRL and `generate` see token ids and extra tensors only, and a media placeholder that the model itself writes is text.

Shape suffixes: B batch, T frames, L = P*P patches, D vision width, V visual tokens, A audio tokens, E Whisper width,
H language width, X prompt tokens.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, BertModel, Qwen2ForCausalLM, Qwen2Model
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from emostream.model.configuration import CONNECTOR_SHAPES, GATE_HIDDEN_SIZE, EmostreamConfig
from emostream.model.connector import Connector
from emostream.model.towers import AudioTower, VisionTower, VoiceHeads, pool_audio
from emostream.people.voice_baseline import moments, speech_steps

#: Keyword arguments that belong to the prompt's media and are spent once the prompt is in the KV cache.
MEDIA_KEYS = (
    "pixel_values_videos",
    "vision_features",
    "visual_embeds",
    "visual_start",
    "num_video_frames",
    "input_features",
    "audio_features",
    "audio_embeds",
    "audio_start",
    "gate_input_ids",
    "gate_attention_mask",
    "gate",
)


#: Tensors that published checkpoints store and nothing reads.
UNUSED_TENSORS = [
    r"vision_model\.head\.",
    r"audio_tower\.(projector|classifier)\.",
    r"bert_model\.pooler\.",
    r"position_ids$",
]


class EmostreamModel(Qwen2Model):
    """Qwen2 with SigLIP, Whisper, BERT gate and connector; module names are the published tensor names."""

    config_class = EmostreamConfig

    def __init__(self, config: EmostreamConfig):
        super().__init__(config)
        width = config.hidden_size
        blocks, padding = CONNECTOR_SHAPES[config.mm_projector_type]
        self.vision_tower = VisionTower(config.vision_config, config.vision_layers)
        self.audio_tower = AudioTower(config.audio_config)
        self.mm_projector = Connector(config.mm_hidden_size, width, blocks, padding)
        self.voice_heads = (
            VoiceHeads(config.audio_hidden_size, config.voice_heads) if config.voice_heads else None
        )
        self.audio_projector = nn.Sequential(
            nn.Linear(config.audio_hidden_size + config.voice_heads, width),
            nn.GELU(),
            nn.Linear(width, width),
        )
        # The gate reads [CLS] itself; a pooler that a checkpoint stores is kept like other unused tensors.
        self.bert_model = BertModel(config.gate_config, add_pooling_layer=False)
        self.bert_gate = nn.Sequential(
            nn.Linear(config.gate_config.hidden_size, GATE_HIDDEN_SIZE),
            nn.GELU(),
            nn.Linear(GATE_HIDDEN_SIZE, 3),
        )
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        # Asked leaf by leaf, since transformers passes over modules without parameters of their own, such as the
        # connector itself; and before there is one, by Qwen2Model's __init__.
        connector = getattr(self, "mm_projector", nn.Module())
        leaf = isinstance(module, nn.Conv2d | nn.Conv3d | nn.Linear)
        if leaf and any(module is part for part in connector.modules()):
            # Qwen2's 0.02 would make 1x1 convolutions of a few hundred channels vanish; keep the variance instead.
            init.kaiming_normal_(module.weight, nonlinearity="linear")

    def train(self, mode: bool = True) -> "EmostreamModel":
        """As `nn.Module.train`, except that frozen towers stay in eval mode: BERT and Whisper hold dropout."""
        super().train(mode)
        for name in ("vision_tower", "audio_tower", "bert_model"):
            tower = getattr(self, name, None)  # some may have been dropped
            if tower is not None and not any(
                parameter.requires_grad for parameter in tower.parameters()
            ):
                tower.eval()
        return self

    def gate(self, gate_input_ids: Tensor, gate_attention_mask: Tensor) -> Tensor:
        """(B, 3) weights of the video, body and face branches, from BERT's [CLS] on the instruction alone.

        The inputs may be on any device.
        """
        hidden = self.bert_model(
            gate_input_ids.to(self.device), attention_mask=gate_attention_mask.to(self.device)
        )
        return self.bert_gate(hidden.last_hidden_state[:, 0]).softmax(-1)

    def vision(self, pixel_values: Tensor) -> Tensor:
        """(…, 3, S, S) pixels in [-1, 1] -> (…, L, D) patch features."""
        lead = pixel_values.shape[:-3]
        return self.vision_tower(pixel_values.flatten(0, -4)).unflatten(0, lead)

    def audio(self, input_features: Tensor) -> Tensor:
        """(B, F, M) log-mel -> (B, A, E + K) pooled Whisper features, and what the voice heads make of the window."""
        return self.audio_tokens(self.audio_tower(input_features), input_features)

    def audio_tokens(
        self, features_BSE: Tensor, mel_BFM: Tensor, speech_BS: Tensor | None = None
    ) -> Tensor:
        """(B, S, E) features of the audio tower -> (B, A, E + K), what the projector takes.

        Args:
            features_BSE: Standardised where the tower is.
            mel_BFM: What the tower was given.
            speech_BS: Which steps are speech, from 0 to 1; told by their level if None.
        """
        tokens_BAE = pool_audio(features_BSE)
        if self.voice_heads is None:
            return tokens_BAE
        if speech_BS is None:
            speech_BS = speech_steps(mel_BFM)
        found = [
            moments(x[None], weight[None].to(x.device))
            for x, weight in zip(features_BSE.float(), speech_BS, strict=True)
        ]
        means, variances = (torch.stack(part) for part in zip(*found, strict=True))
        return self.voice_heads.beside(tokens_BAE, means, variances)

    def splice(
        self,
        inputs_embeds: Tensor,
        media_embeds: Tensor | None,
        start: Tensor | None,
        count: Tensor | None = None,
    ) -> Tensor:
        """Lay media tokens over the placeholders, without a device synchronisation.

        Args:
            inputs_embeds: (B, X, H).
            media_embeds: (B, N, H), rows padded at the end to N.
            start: (B,) position of each row's first placeholder; -1 where the row lacks the modality.
            count: (B,) tokens of each row; N if omitted.

        Returns:
            (B, X, H).
        """
        if media_embeds is None or start is None:
            return inputs_embeds
        rows, limit, width = media_embeds.shape
        count = torch.full_like(start, limit) if count is None else count
        offset_BX = torch.arange(inputs_embeds.shape[1], device=start.device) - start[:, None]
        inside_BX = (offset_BX >= 0) & (offset_BX < count[:, None]) & (start >= 0)[:, None]
        source_BX1 = offset_BX.clamp(0, limit - 1)[..., None]
        laid_BXH = media_embeds.to(inputs_embeds.dtype).gather(
            1, source_BX1.expand(rows, -1, width)
        )
        return torch.where(inside_BX[..., None], laid_BXH, inputs_embeds)

    def embed_media(
        self,
        pixel_values_videos: Tensor | None = None,
        vision_features: Tensor | None = None,
        visual_embeds: Tensor | None = None,
        input_features: Tensor | None = None,
        audio_features: Tensor | None = None,
        audio_embeds: Tensor | None = None,
        gate_input_ids: Tensor | None = None,
        gate_attention_mask: Tensor | None = None,
        gate: Tensor | None = None,
    ) -> tuple[Tensor | None, Tensor | None]:
        """Visual (B, V, H) and audio (B, A, H) tokens, from whichever stage of each was given.

        Args:
            pixel_values_videos: (B, T, 3, S, S).
            vision_features: (B, T, L, D), what frozen towers give and training caches.
            visual_embeds: (B, V, H), what the streaming encoder gives.
            input_features: (B, F, M) log-mel.
            audio_features: (B, A, E + K), as `audio` gives them.
            audio_embeds: (B, A, H).
            gate_input_ids: (B, I) BERT tokens of the instruction.
            gate_attention_mask: (B, I) their mask.
            gate: (B, 3), if it is known already.
        """
        if pixel_values_videos is not None:
            vision_features = self.vision(pixel_values_videos)
        if vision_features is not None:
            if gate is None:
                assert gate_input_ids is not None
                assert gate_attention_mask is not None
                gate = self.gate(gate_input_ids, gate_attention_mask)
            vision_features = vision_features.to(self.dtype)
            visual_embeds = self.mm_projector(vision_features, gate).flatten(1, 2)
        if input_features is not None:
            audio_features = self.audio(input_features)
        if audio_features is not None:
            audio_embeds = self.audio_projector(audio_features.to(self.dtype))
        return visual_embeds, audio_embeds

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        visual_start: Tensor | None = None,
        audio_start: Tensor | None = None,
        num_video_frames: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        vision_features: Tensor | None = None,
        visual_embeds: Tensor | None = None,
        input_features: Tensor | None = None,
        audio_features: Tensor | None = None,
        audio_embeds: Tensor | None = None,
        gate_input_ids: Tensor | None = None,
        gate_attention_mask: Tensor | None = None,
        gate: Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Qwen2's forward with media spliced in; see `embed_media` and `splice` for the media arguments.

        `num_video_frames` is (B,), for batches whose clips differ in length. The cache comes under whichever name this
        transformers gives it (`kv_cache.CACHE_ARGUMENT`) and is handed on.
        """
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        if visual_start is not None or audio_start is not None:
            visual, audio = self.embed_media(
                pixel_values_videos,
                vision_features,
                visual_embeds,
                input_features,
                audio_features,
                audio_embeds,
                gate_input_ids,
                gate_attention_mask,
                gate,
            )
            visual_count = (
                None
                if num_video_frames is None
                else num_video_frames * self.config.visual_tokens_per_frame
            )
            inputs_embeds = self.splice(inputs_embeds, visual, visual_start, visual_count)
            inputs_embeds = self.splice(inputs_embeds, audio, audio_start)
        return super().forward(
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )


class EmostreamForCausalLM(Qwen2ForCausalLM):
    """R1-Omni's model. `generate` returns prompt and new tokens, as any CausalLM.

    Attributes:
        unused_tensors: Tensors of the checkpoint that no module holds (SigLIP's pooling head, Whisper's classifier),
            by published name; `save_model` writes them back.
    """

    config_class = EmostreamConfig
    _keys_to_ignore_on_load_unexpected = UNUSED_TENSORS

    def __init__(self, config: EmostreamConfig):
        # Qwen2ForCausalLM's own would build and initialise a whole Qwen2 only to have it replaced.
        super(Qwen2ForCausalLM, self).__init__(config)
        self.model = EmostreamModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.unused_tensors: dict[str, Tensor] = {}
        self.post_init()

    def freeze_towers(self) -> None:
        """Stop gradients of SigLIP, Whisper, BERT and the voice heads, kept in eval mode. Call after loading."""
        for tower in (self.model.vision_tower, self.model.audio_tower, self.model.bert_model):
            tower.requires_grad_(False)
        if self.model.voice_heads is not None:
            self.model.voice_heads.requires_grad_(False)
        self.model.train(self.model.training)

    def drop_encoders(self) -> None:
        """Free SigLIP, Whisper and the connector, for good, where something else runs them.

        From then on media are given as `visual_embeds` and `audio_embeds`, and the model can no longer be saved. What
        is behind the encoder of a standardised audio tower is small, and stays: what it is given depends on who speaks.
        """
        gone = ["vision_tower", "mm_projector"]
        if self.config.standardises_voices:
            del self.model.audio_tower.audio_tower["encoder"]
        else:
            gone += ["audio_tower", "audio_projector"]
        for name in gone:
            delattr(self.model, name)
        self.unused_tensors = {}

    def save_pretrained(
        self, *args: Any, state_dict: dict[str, Tensor] | None = None, **kwargs: Any
    ) -> None:
        """As transformers', unused tensors included; with the processor's files, `load_model` opens the folder."""
        state_dict = {**self.unused_tensors, **(state_dict or self.state_dict())}
        super().save_pretrained(*args, state_dict=state_dict, **kwargs)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        visual_start: Tensor | None = None,
        audio_start: Tensor | None = None,
        num_video_frames: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        vision_features: Tensor | None = None,
        visual_embeds: Tensor | None = None,
        input_features: Tensor | None = None,
        audio_features: Tensor | None = None,
        audio_embeds: Tensor | None = None,
        gate_input_ids: Tensor | None = None,
        gate_attention_mask: Tensor | None = None,
        gate: Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Qwen2's forward; the media arguments are those of `EmostreamModel.forward`.

        They are spelled out because `generate` refuses what is not in this signature, and `Trainer` drops such columns.
        """
        return super().forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            labels=labels,
            use_cache=use_cache,
            logits_to_keep=logits_to_keep,
            visual_start=visual_start,
            audio_start=audio_start,
            num_video_frames=num_video_frames,
            pixel_values_videos=pixel_values_videos,
            vision_features=vision_features,
            visual_embeds=visual_embeds,
            input_features=input_features,
            audio_features=audio_features,
            audio_embeds=audio_embeds,
            gate_input_ids=gate_input_ids,
            gate_attention_mask=gate_attention_mask,
            gate=gate,
            **kwargs,
        )

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        *args: Any,
        is_first_iteration: bool | None = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Media belong to the prompt: they are dropped once it is in the KV cache."""
        if not is_first_iteration and kwargs.get("use_cache", True):
            kwargs = {key: value for key, value in kwargs.items() if key not in MEDIA_KEYS}
        return super().prepare_inputs_for_generation(
            input_ids, *args, is_first_iteration=is_first_iteration, **kwargs
        )


AutoConfig.register(EmostreamConfig.model_type, EmostreamConfig)
AutoModelForCausalLM.register(EmostreamConfig, EmostreamForCausalLM)
