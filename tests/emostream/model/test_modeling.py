"""The model as a transformers CausalLM: batches, generation, training, and media stages given from outside."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from emostream import load_model
from emostream.errors import ConfigError
from emostream.inference.kv_cache import CACHE_ARGUMENT
from emostream.model.configuration import EmostreamConfig
from emostream.model.modeling import MEDIA_KEYS, EmostreamForCausalLM
from emostream.model.presets import from_preset
from tests.checkpoint_factory import Family, make_checkpoint, random_audio, random_frames

TOLERANCE = 1e-4
TOWERS = ("model.vision_tower.", "model.audio_tower.", "model.bert_model.")

FAMILIES = {
    "0.5b": Family(),
    "7b": Family(connector="all_in_one", image_size=56, patch_size=8, tied=False, seed=1),
}


@pytest.fixture(scope="module", params=FAMILIES)
def loaded(request, tmp_path_factory):
    return load_model(make_checkpoint(tmp_path_factory.mktemp("m") / "c", FAMILIES[request.param]))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return load_model(make_checkpoint(tmp_path_factory.mktemp("m") / "c", Family()))


@pytest.fixture
def trainable(small):
    return copy.deepcopy(small[0]), small[1]


CLIPS = {
    "both": (4, 2.0),
    "video": (4, None),
    "audio": (None, 1.0),
    "one frame": (1, None),
    "many frames": (7, 0.3),
}


def clip(name: str, seed: int = 0):
    frames, seconds = CLIPS[name]
    return (
        None if frames is None else random_frames(frames, seed),
        None if seconds is None else random_audio(seconds, seed),
    )


def as_batch(processor, clips, **kwargs):
    return processor(frames=[c[0] for c in clips], audio=[c[1] for c in clips], **kwargs)


def greedy(model, inputs, **kwargs):
    settings = {"do_sample": False, "max_new_tokens": 8, "eos_token_id": None, **kwargs}
    return model.generate(**inputs, **settings)


class TestBatches:
    def test_each_row_equals_the_clip_alone(self, loaded):
        model, processor = loaded
        clips = [clip(name, seed) for seed, name in enumerate(CLIPS)]
        batch = as_batch(processor, clips)
        with torch.inference_mode():
            together = model(**batch).logits
            for row, (frames, audio) in enumerate(clips):
                alone = model(**processor(frames=frames, audio=audio)).logits[0]
                found = together[row, -len(alone) :]
                torch.testing.assert_close(found, alone, atol=TOLERANCE, rtol=0)

    def test_greedy_tokens_equal_the_clip_alone(self, loaded):
        model, processor = loaded
        clips = [clip(name, seed) for seed, name in enumerate(CLIPS)]
        batch = as_batch(processor, clips)
        together = greedy(model, batch)
        assert torch.equal(together[:, : batch["input_ids"].shape[1]], batch["input_ids"])
        for row, (frames, audio) in enumerate(clips):
            inputs = processor(frames=frames, audio=audio)
            alone = greedy(model, inputs)
            assert alone.shape[1] == inputs["input_ids"].shape[1] + 8
            assert torch.equal(together[row, -8:], alone[0, -8:])

    @settings(max_examples=10)
    @given(
        names=st.lists(st.sampled_from(sorted(CLIPS)), min_size=1, max_size=4),
        seed=st.integers(0, 1000),
    )
    def test_any_mixture(self, small, names, seed):
        model, processor = small
        clips = [clip(name, seed + row) for row, name in enumerate(names)]
        questions = [f"Question {seed + row} {'happy ' * row}?" for row in range(len(names))]
        batch = as_batch(processor, clips, instruction=questions)
        with torch.inference_mode():
            together = model(**batch).logits[:, -1]
            for row, (frames, audio) in enumerate(clips):
                inputs = processor(frames=frames, audio=audio, instruction=questions[row])
                alone = model(**inputs).logits[0, -1]
                torch.testing.assert_close(together[row], alone, atol=TOLERANCE, rtol=0)

    def test_every_modality_matters(self, small):
        """Guards the comparisons above: logits that ignored the media would agree too."""
        model, processor = small
        frames, audio = clip("both")
        with torch.inference_mode():
            base = model(**processor(frames=frames, audio=audio)).logits[0, -1]
            for other in (
                processor(frames=random_frames(4, 9), audio=audio),
                processor(frames=frames[::-1], audio=audio),
                processor(frames=frames, audio=random_audio(2, 9)),
                processor(frames=frames, audio=audio, instruction="Is it loud?"),
            ):
                assert (model(**other).logits[0, -1] - base).abs().max() > 100 * TOLERANCE

    def test_absent_modality_adds_no_tokens(self, loaded):
        model, processor = loaded
        both, video, audio = (
            processor(frames=f, audio=a)["input_ids"].shape[1]
            for f, a in (clip("both"), (clip("both")[0], None), (None, clip("both")[1]))
        )
        assert video < both - 33
        assert audio < both - 4 * model.config.visual_tokens_per_frame


class TestGenerate:
    def test_equals_steps_without_cache(self, small):
        model, processor = small
        inputs = as_batch(processor, [clip("both"), clip("video", 1)])
        assert torch.equal(greedy(model, inputs), greedy(model, inputs, use_cache=False))

    def test_equals_forward_by_hand(self, small):
        model, processor = small
        inputs = processor(frames=clip("both")[0], audio=clip("both")[1])
        out = greedy(model, inputs)
        longer = {
            **inputs,
            "input_ids": out[:, :-1],
            "attention_mask": torch.ones_like(out[:, :-1]),
        }
        with torch.inference_mode():
            again = model(**longer).logits.argmax(-1)
        assert torch.equal(again[:, -8:], out[:, -8:])

    def test_placeholders_that_the_model_writes_are_text(self, small):
        """A completion may hold the placeholder's id, as random models write it: no media is laid over it."""
        model, processor = small
        placeholder = processor.placeholder_id
        inputs = processor(frames=clip("both")[0], audio=clip("both")[1])
        prompt = inputs["input_ids"].shape[1]
        completion = torch.tensor([[5, placeholder, placeholder, 7, placeholder]])
        ids = torch.cat([inputs["input_ids"], completion], 1)
        longer = {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
        with torch.inference_mode():
            whole = model(**longer).logits[0, prompt - 1 :]
            state = model(**inputs, use_cache=True)
            steps = [state.logits[0, -1]]
            for token in completion[0]:
                cache = {CACHE_ARGUMENT: state[CACHE_ARGUMENT]}
                state = model(input_ids=token[None, None], **cache)
                steps.append(state.logits[0, -1])
        torch.testing.assert_close(whole, torch.stack(steps), atol=TOLERANCE, rtol=0)

    def test_forced_placeholder_in_generation(self, small):
        model, processor = small
        inputs = processor(frames=clip("both")[0])
        placeholder = processor.placeholder_id
        bias = {(placeholder,): 1e4}
        out = greedy(model, inputs, sequence_bias=bias)
        assert (out[0, -8:] == placeholder).all()
        uncached = greedy(model, inputs, sequence_bias=bias, use_cache=False)
        assert torch.equal(out, uncached)

    def test_several_sequences_a_prompt(self, small):
        """As a group of completions is drawn: every sample starts from the same media."""
        model, processor = small
        inputs = as_batch(processor, [clip("both"), clip("audio", 1)])
        torch.manual_seed(0)
        out = model.generate(
            **inputs, do_sample=True, num_return_sequences=3, max_new_tokens=5, eos_token_id=None
        )
        prompt = inputs["input_ids"].shape[1]
        assert out.shape == (6, prompt + 5)
        assert torch.equal(out[:, :prompt], inputs["input_ids"].repeat_interleave(3, 0))
        alone = model.generate(
            **inputs, do_sample=False, num_return_sequences=1, max_new_tokens=1, eos_token_id=None
        )
        torch.manual_seed(1)
        cold = model.generate(
            **inputs,
            do_sample=True,
            temperature=1e-4,
            num_return_sequences=3,
            max_new_tokens=1,
            eos_token_id=None,
        )
        assert torch.equal(cold[:, -1], alone[:, -1].repeat_interleave(3))

    def test_beams(self, small):
        """One beam more can only find a likelier sequence; two rows of one clip find the same."""
        model, processor = small
        inputs = as_batch(processor, [clip("both"), clip("both")])

        def score(out):
            new = out[:, inputs["input_ids"].shape[1] :]
            ids = torch.cat([inputs["input_ids"], new], 1)
            longer = {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
            with torch.inference_mode():
                logits = model(**longer).logits[:, -new.shape[1] - 1 : -1].log_softmax(-1)
            return logits.gather(-1, new[..., None]).sum((1, 2))

        greedily = greedy(model, inputs, max_new_tokens=4)
        beams = greedy(model, inputs, max_new_tokens=4, num_beams=4)
        assert torch.equal(beams[0], beams[1])
        assert (score(beams) >= score(greedily) - 1e-4).all()

    def test_stops_at_eos_and_pads_after_it(self, small):
        model, processor = small
        inputs = as_batch(processor, [clip("both"), clip("video", 1)])
        free = greedy(model, inputs)
        prompt = inputs["input_ids"].shape[1]
        stop = int(free[0, prompt + 2])
        first = free[0, prompt:].tolist().index(stop)
        out = greedy(model, inputs, eos_token_id=stop)
        assert torch.equal(out[0, : prompt + first + 1], free[0, : prompt + first + 1])
        assert (out[0, prompt + first + 1 :] == model.generation_config.pad_token_id).all()

    def test_static_cache(self, small):
        model, processor = small
        inputs = as_batch(processor, [clip("both"), clip("video", 1)])
        assert torch.equal(
            greedy(model, inputs), greedy(model, inputs, cache_implementation="static")
        )


class TestMediaStages:
    """Training caches what frozen towers give and the streaming encoder gives tokens: the same logits come of all."""

    @pytest.fixture(scope="class")
    @classmethod
    def stages(cls, small):
        model, processor = small
        inputs = as_batch(processor, [clip("both", 1), clip("both", 2)])
        with torch.inference_mode():
            wanted = model(**inputs).logits
            backbone = model.model
            vision = backbone.vision(inputs["pixel_values_videos"])
            audio = backbone.audio(inputs["input_features"])
            gate = backbone.gate(inputs["gate_input_ids"], inputs["gate_attention_mask"])
            visual_embeds, audio_embeds = backbone.embed_media(
                vision_features=vision, audio_features=audio, gate=gate
            )
        text = {
            k: inputs[k] for k in ("input_ids", "attention_mask", "visual_start", "audio_start")
        }
        return (
            model,
            text,
            {
                "features": {"vision_features": vision, "audio_features": audio, "gate": gate},
                "features and instruction": {
                    "vision_features": vision,
                    "audio_features": audio,
                    "gate_input_ids": inputs["gate_input_ids"],
                    "gate_attention_mask": inputs["gate_attention_mask"],
                },
                "tokens": {"visual_embeds": visual_embeds, "audio_embeds": audio_embeds},
            },
            wanted,
        )

    @pytest.mark.parametrize("stage", ["features", "features and instruction", "tokens"])
    def test_stage(self, stages, stage):
        model, text, given, wanted = stages
        with torch.inference_mode():
            found = model(**text, **given[stage]).logits
            torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
        out = greedy(model, {**text, **given[stage]}, max_new_tokens=3)
        assert out.shape[1] == text["input_ids"].shape[1] + 3

    def test_cached_features_in_half_precision(self, stages):
        model, text, given, wanted = stages
        half = {key: value.half() for key, value in given["features"].items()}
        with torch.inference_mode():
            found = model(**text, **half).logits
        torch.testing.assert_close(found, wanted, atol=0.1, rtol=0)

    def test_every_media_argument_is_dropped_after_the_prompt(self, stages):
        model, text, given, _ = stages
        media = {key for stage in given.values() for key in stage} | {"visual_start", "audio_start"}
        assert media <= set(MEDIA_KEYS)
        ids = torch.cat([text["input_ids"], torch.ones(2, 1, dtype=torch.long)], 1)
        later = model.prepare_inputs_for_generation(
            ids, is_first_iteration=False, attention_mask=torch.ones_like(ids), **given["tokens"]
        )
        assert not media & later.keys()


class TestTraining:
    def batch(self, processor):
        inputs = as_batch(processor, [clip("both", 1), clip("video", 2), clip("audio", 3)])
        labels = inputs["input_ids"].clone()
        labels[:, :-20] = -100
        return {**inputs, "labels": labels}

    def test_loss_is_the_shifted_cross_entropy(self, small):
        model, processor = small
        batch = self.batch(processor)
        with torch.inference_mode():
            out = model(**batch)
        wanted = torch.nn.functional.cross_entropy(
            out.logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten()
        )
        torch.testing.assert_close(out.loss, wanted)
        with torch.inference_mode():
            counted = model(**batch, num_items_in_batch=7).loss
        torch.testing.assert_close(counted, wanted * 60 / 7)

    def test_gradients_reach_what_is_trained(self, trainable):
        model, processor = trainable
        model.freeze_towers()
        model.train()
        model(**self.batch(processor)).loss.backward()
        for name, parameter in model.named_parameters():
            if name.startswith(TOWERS):
                assert parameter.grad is None, name
            else:
                assert parameter.grad is not None, name
                assert parameter.grad.abs().sum() > 0, name

    def test_frozen_towers_stay_in_eval_mode(self, trainable):
        model, processor = trainable
        model.freeze_towers()
        model.train()
        backbone = model.model
        assert model.training
        assert backbone.mm_projector.training
        for tower in (backbone.vision_tower, backbone.audio_tower, backbone.bert_model):
            assert not any(module.training for module in tower.modules())
        batch = self.batch(processor)
        assert torch.equal(model(**batch).logits, model(**batch).logits), "dropout is at work"
        model.eval()
        assert not any(module.training for module in model.modules())

    def test_without_its_encoders_it_still_changes_mode(self):
        model, _ = from_preset("tiny")
        model.drop_encoders()
        assert model.train().model.bert_model.training
        assert not any(module.training for module in model.eval().modules())

    def test_towers_train_unless_frozen(self, trainable):
        model, processor = trainable
        model.train()
        assert model.model.bert_model.training
        model(**self.batch(processor)).loss.backward()
        for name in (
            "model.vision_tower.vision_tower.vision_model.encoder.layers.1.mlp.fc1.weight",
            "model.audio_tower.audio_tower.encoder.layers.1.fc1.weight",
            "model.bert_model.encoder.layer.1.output.dense.weight",
        ):
            assert model.get_parameter(name).grad.abs().sum() > 0

    def test_towers_can_be_thawed_again(self, trainable):
        model, _ = trainable
        model.freeze_towers()
        model.model.vision_tower.requires_grad_(True)
        model.train()
        assert model.model.vision_tower.training
        assert not model.model.audio_tower.training

    @pytest.mark.parametrize("reentrant", [False, True])
    def test_gradient_checkpointing(self, trainable, reentrant):
        model, processor = trainable
        model.freeze_towers()
        model.train()
        batch = self.batch(processor)
        model(**batch).loss.backward()
        wanted = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        model.zero_grad()
        # transformers 5.23 renamed it.
        enable = getattr(
            model, "activation_checkpointing_enable", model.gradient_checkpointing_enable
        )
        enable({"use_reentrant": reentrant})
        if reentrant:
            model.enable_input_require_grads()
        model(**batch, use_cache=False).loss.backward()
        for name, gradient in wanted.items():
            torch.testing.assert_close(
                model.get_parameter(name).grad, gradient, atol=1e-5, rtol=1e-3
            )

    def test_a_few_steps_lower_the_loss(self, trainable):
        model, processor = trainable
        model.freeze_towers()
        model.train()
        batch = self.batch(processor)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
        losses = []
        for _ in range(6):
            optimizer.zero_grad()
            loss = model(**batch).loss
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        assert losses[-1] < 0.7 * losses[0], losses

    def test_media_positions_take_no_gradient_through_the_placeholder(self, trainable):
        """The placeholder's embedding is overwritten, so that only its occurrences as text may move it."""
        model, processor = trainable
        inputs = processor(frames=clip("video")[0], instruction="happy")
        free = next(
            i for i in range(model.config.vocab_size) if i not in inputs["input_ids"].tolist()[0]
        )
        start = int(inputs["visual_start"])
        count = 4 * model.config.visual_tokens_per_frame
        inputs["input_ids"][0, start : start + count] = free
        embeds = model.model.embed_tokens(inputs["input_ids"]).detach().requires_grad_(True)
        arguments = {key: value for key, value in inputs.items() if key != "input_ids"}
        model(inputs_embeds=embeds, **arguments).logits[0, -1].sum().backward()
        moved = embeds.grad[0].abs().sum(-1)
        assert (moved[start : start + count] == 0).all()
        assert moved[start - 1] > 0


class TestConstruction:
    def subs(self):
        family = Family()
        return {
            "vision_config": family.vision_config(),
            "audio_config": family.audio_config(),
            "gate_config": family.gate_config(),
        }

    def test_random_weights_keep_the_variance_in_the_connector(self):
        """0.02 throughout, as in the language model, would make wide convolutions vanish."""
        torch.manual_seed(0)
        model = EmostreamForCausalLM(EmostreamConfig(**Family().published_config(), **self.subs()))
        connector = dict(model.model.mm_projector.named_modules())
        for name in ("s1_video.b1.conv1.conv", "sampler_body.0", "readout_body.2"):
            weight = connector[name].weight
            assert float(weight.detach().std()) == pytest.approx(weight[0].numel() ** -0.5, rel=0.1)
        others = (model.model.layers[0].mlp.up_proj, model.model.audio_projector[0])
        assert all(float(m.weight.detach().std()) == pytest.approx(0.02, rel=0.1) for m in others)
        assert not any(parameter.isnan().any() for parameter in model.parameters())
        assert model.lm_head.weight is model.model.embed_tokens.weight

    @pytest.mark.parametrize(
        ("changes", "counts"),
        [
            ({}, (4, 2, 4)),
            ({"image_size": 224}, (14, 7, 49)),
            ({"image_size": 384, "patch_size": 14, "connector": "all_in_one"}, (27, 14, 196)),
            ({"image_size": 56, "patch_size": 8, "connector": "all_in_one"}, (7, 4, 16)),
        ],
    )
    def test_token_counts(self, changes, counts):
        family = Family(**changes)
        config = EmostreamConfig(
            **family.published_config(), **{**self.subs(), "vision_config": family.vision_config()}
        )
        found = (config.patches_per_side, config.tokens_per_side, config.visual_tokens_per_frame)
        assert found == counts
        assert config.audio_tokens(3000) == 500

    @pytest.mark.parametrize(("select", "layers"), [(-1, 3), (-2, 2), (-4, 0), (0, 0), (3, 3)])
    def test_selected_layer(self, select, layers):
        published = Family(select_layer=select).published_config()
        assert EmostreamConfig(**published, **self.subs()).vision_layers == layers

    def test_defaults_are_the_half_billion_checkpoint(self):
        config = EmostreamConfig(hidden_size=896)
        assert config.vision_config.hidden_size == 768
        assert config.audio_config.d_model == 1280
        assert config.visual_tokens_per_frame == 49
        assert config.vision_layers == 11

    @pytest.mark.parametrize("layer", [4, -5])
    def test_layer_out_of_range(self, layer):
        with pytest.raises(ConfigError, match=f"mm_vision_select_layer is {layer}"):
            EmostreamConfig(**Family(select_layer=layer).published_config(), **self.subs())


def test_deep_copy_keeps_unused_tensors(small):
    model = copy.deepcopy(small[0])
    assert model.unused_tensors.keys() == small[0].unused_tensors.keys()


def test_order_of_frames_is_time(small):
    """Media tokens of a batch lie in the order of the frames: moving one frame moves the tokens of two steps."""
    model, processor = small
    frames = random_frames(4, 3)
    changed = np.array(frames)
    changed[1] = 255 - changed[1]
    with torch.inference_mode():
        gate = torch.full((1, 3), 1 / 3)
        a, b = (
            model.model.embed_media(pixel_values_videos=processor.pixels(f)[None], gate=gate)[0]
            for f in (frames, changed)
        )
    moved = (a - b).abs().amax(-1).reshape(4, -1).amax(-1)
    assert (moved[[1, 2]] > 1e-3).all()
    assert (moved[[0, 3]] < 1e-6).all()
