"""Checkpoints in and out: every form that they come in, and every way in which they are broken."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig
from transformers.utils import logging as transformers_logging

import emostream
from emostream import load_model, save_model
from emostream.checkpoint import files as weights
from emostream.checkpoint import hub, resolve
from emostream.errors import CheckpointError, ConfigError
from emostream.model.configuration import EmostreamConfig
from emostream.model.modeling import EmostreamForCausalLM
from emostream.model.processor import EmostreamProcessor
from tests.checkpoint_factory import (
    AUDIO_PREFIX,
    PARITY,
    TOWER_FOLDERS,
    TOWER_PREFIXES,
    Family,
    edit_config,
    make_checkpoint,
    make_towers,
    random_audio,
    random_frames,
    write_json,
    write_tower_repository,
)

#: Image 56 in patches of 8: 7 a side, 4 after the connector's padding, as 27 become 14 in the 7B.
SEVEN_B = {"connector": "all_in_one", "image_size": 56, "patch_size": 8}

FAMILIES = {
    "0.5b": Family(),
    "7b": Family(**SEVEN_B, tied=False, seed=1),
    "deep": Family(layers=3, vision_layers=5, audio_layers=3, select_layer=-3, seed=2),
    "last_layer": Family(select_layer=-1, vision_layers=2, seed=3),
    "untied": Family(tied=False, num_frames=2, audio_positions=60, seed=4),
    "wide": Family(width=96, vision_width=48, audio_width=24, layers=1, num_frames=16, seed=5),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint that tests read."""
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "small", Family())


@pytest.fixture
def copy(folder, tmp_path):
    """A checkpoint that a test may break."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@torch.inference_mode()
def logits_of(model, processor, frames: int = 3) -> torch.Tensor:
    inputs = processor(frames=random_frames(frames), audio=random_audio(1))
    return model(**inputs).logits


def logits_of_folder(folder: Path, **kwargs) -> torch.Tensor:
    return logits_of(*load_model(folder, **kwargs))


def same_bytes(found: Path, wanted: Path) -> None:
    """Equal names, dtypes, shapes and bytes, whatever the order in the file."""
    a, b = load_tensors(found), load_tensors(wanted)
    assert a.keys() == b.keys()
    for name, tensor in b.items():
        assert a[name].dtype == tensor.dtype, name
        assert torch.equal(
            a[name].view(torch.uint8).flatten() if a[name].ndim else a[name],
            tensor.view(torch.uint8).flatten() if tensor.ndim else tensor,
        ), name


def load_tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {
        name: tensor
        for file in folder.glob("*.safetensors")
        for name, tensor in load_file(file).items()
    }


@pytest.fixture(params=FAMILIES)
def family(request):
    return FAMILIES[request.param]


class TestRoundTrip:
    def test_family(self, tmp_path, family):
        source = make_checkpoint(tmp_path / "source", family)
        model, processor = load_model(source)
        wanted = logits_of(model, processor)
        saved = save_model(model, processor, tmp_path / "saved")
        same_bytes(saved, source)
        assert torch.equal(logits_of_folder(saved), wanted)
        again, _ = load_model(saved)
        assert again.config.tie_word_embeddings == family.tied
        assert ("lm_head.weight" in load_tensors(saved)) != family.tied

    def test_parity_checkpoint(self, tmp_path):
        saved = save_model(*load_model(PARITY), tmp_path / "saved")
        same_bytes(saved, PARITY)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
    def test_dtypes(self, tmp_path, dtype):
        source = make_checkpoint(tmp_path / "source", dtype=dtype)
        edit_config(source, torch_dtype=str(dtype).removeprefix("torch."))
        model, processor = load_model(source, dtype=dtype)
        assert {p.dtype for p in model.parameters()} == {dtype}
        assert model.model.rotary_emb.inv_freq.dtype == torch.float32
        saved = save_model(model, processor, tmp_path / "saved")
        same_bytes(saved, source)
        written = json.loads((saved / "config.json").read_text())
        assert written["torch_dtype"] == str(dtype).removeprefix("torch.")

    def test_cast_on_loading_is_what_is_saved(self, folder, tmp_path):
        model, processor = load_model(folder, dtype=torch.bfloat16)
        saved = save_model(model, processor, tmp_path / "saved")
        stored = load_tensors(saved)
        unused = set(model.unused_tensors)
        assert unused
        assert {t.dtype for name, t in stored.items() if name not in unused} == {torch.bfloat16}
        assert json.loads((saved / "config.json").read_text())["torch_dtype"] == "bfloat16"

    def test_unused_tensors_come_back(self, folder, tmp_path):
        model, processor = load_model(folder)
        unused = set(model.unused_tensors)
        for name in ("vision_model.head.probe", "audio_tower.classifier.bias", "pooler.dense.bias"):
            assert any(key.endswith(name) for key in unused)
        assert unused <= load_tensors(save_model(model, processor, tmp_path / "saved")).keys()

    def test_config_keys_are_kept(self, tmp_path):
        extra = {
            "hyper_layers": [0],
            "mm_tunable_parts": "mm_mlp_adapter",
            "mm_projector_lr": None,
            "tokenizer_model_max_length": 2048,
            "temperature": 0.3,
            "top_p": 0.9,
            "do_sample": True,
            "sliding_window": 32768,
            "rope_scaling": None,
            "name with spaces": {"nested": [1, 2.5, None]},
            "dtype_of_someone": "float8",
        }
        source = make_checkpoint(tmp_path / "source", Family(extra=extra))
        wanted = json.loads((source / "config.json").read_text())
        saved = save_model(*load_model(source), tmp_path / "saved")
        found = json.loads((saved / "config.json").read_text())
        assert {key: found.get(key) for key in wanted} == wanted

    def test_changed_values_are_written(self, folder, tmp_path):
        model, processor = load_model(folder)
        model.config.num_frames = 12
        model.config.answer_style = "bare"
        model.config.frame_crop, model.config.crop_margin = "face", 1.25
        saved = save_model(model, processor, tmp_path / "saved")
        config = load_model(saved)[0].config
        assert (config.num_frames, config.answer_style) == (12, "bare")
        assert (config.frame_crop, config.crop_margin) == ("face", 1.25)

    def test_what_of_a_frame_is_shown_is_written_only_where_it_was_said(self, folder, tmp_path):
        model, processor = load_model(folder)
        assert (model.config.frame_crop, model.config.crop_margin) == ("whole", 1.1)
        saved = json.loads(
            (save_model(model, processor, tmp_path / "saved") / "config.json").read_text()
        )
        assert {"frame_crop", "crop_margin"}.isdisjoint(saved)

    def test_rope_scaling_survives(self, tmp_path):
        scaling = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}
        source = make_checkpoint(tmp_path / "source", Family(extra={"rope_scaling": scaling}))
        model, processor = load_model(source)
        assert model.config.rope_parameters["rope_type"] == "yarn"
        saved = save_model(model, processor, tmp_path / "saved")
        assert json.loads((saved / "config.json").read_text())["rope_scaling"] == scaling
        model.config.published = None
        saved = save_model(model, processor, tmp_path / "anew")
        assert torch.equal(logits_of_folder(saved), logits_of_folder(source))

    def test_tower_configurations_are_kept(self, folder, copy, tmp_path):
        edit_config(copy / TOWER_FOLDERS["vision"], a_key_of_its_own=7)
        saved = save_model(*load_model(copy), tmp_path / "saved")
        for part in TOWER_FOLDERS.values():
            before = json.loads((copy / part / "config.json").read_text())
            after = json.loads((saved / part / "config.json").read_text())
            assert {key: after.get(key) for key in before} == before
            assert after.get("vision_use_head", True)

    def test_generation_settings(self, copy, tmp_path):
        """Also those that transformers refuses to save: published files have them."""
        settings = {"do_sample": False, "temperature": 0.7, "eos_token_id": [464, 465]}
        write_json(copy / "generation_config.json", settings)
        model, processor = load_model(copy)
        saved = save_model(model, processor, tmp_path / "saved")
        again = load_model(saved)[0].generation_config
        assert again.temperature == model.generation_config.temperature
        assert again.eos_token_id == [464, 465]

    def test_tokenizer_files_of_both_major_versions(self, folder, tmp_path):
        _, processor = loaded = load_model(folder)
        saved = save_model(*loaded, tmp_path / "saved")
        gate = saved / TOWER_FOLDERS["gate"]
        for file in (saved / "vocab.json", saved / "merges.txt", gate / "vocab.txt"):
            assert file.stat().st_size > 100
        original = json.loads((folder / "tokenizer_config.json").read_text())
        written = json.loads((saved / "tokenizer_config.json").read_text())
        for key in ("added_tokens_decoder", "chat_template", "tokenizer_class", "eos_token"):
            assert written[key] == original[key]
        assert not isinstance(written.get("extra_special_tokens"), list)
        (saved / "tokenizer.json").unlink()
        (gate / "tokenizer.json").unlink()
        again = load_model(saved)[1]
        text = "<|im_start|>user\n<vi_start> You are happy: 123 ünïcode\n\n  end<|im_end|>"
        for name in ("tokenizer", "gate_tokenizer"):
            before, after = getattr(processor, name), getattr(again, name)
            assert before(text)["input_ids"] == after(text)["input_ids"]
            assert before.padding_side == after.padding_side

    def test_tokens_added_by_a_user(self, folder, tmp_path):
        model, processor = load_model(folder)
        processor.tokenizer.add_tokens(["<calm>"])
        again = load_model(save_model(model, processor, tmp_path / "saved"))[1]
        ids = processor.tokenizer("so <calm>!")["input_ids"]
        assert ids == again.tokenizer("so <calm>!")["input_ids"]
        assert again.tokenizer.convert_tokens_to_ids("<calm>") in ids

    def test_shards(self, folder, tmp_path, monkeypatch):
        monkeypatch.setattr(weights, "MAX_SHARD_BYTES", 300_000)
        saved = save_model(*load_model(folder), tmp_path / "saved")
        index = json.loads((saved / "model.safetensors.index.json").read_text())
        assert len(set(index["weight_map"].values())) > 2
        assert not (saved / "model.safetensors").exists()
        total = sum(tensor.nbytes for tensor in load_tensors(saved).values())
        assert index["metadata"]["total_size"] == total
        same_bytes(saved, folder)
        assert torch.equal(logits_of_folder(saved), logits_of_folder(folder))

    def test_writing_again_leaves_no_stale_shards(self, folder, tmp_path, monkeypatch):
        monkeypatch.setattr(weights, "MAX_SHARD_BYTES", 300_000)
        saved = save_model(*load_model(folder), tmp_path / "saved")
        monkeypatch.undo()
        save_model(*load_model(folder), saved)
        assert [file.name for file in saved.glob("model*")] == ["model.safetensors"]

    def test_over_the_checkpoint_that_the_model_came_from(self, copy, folder):
        model, processor = load_model(copy)
        with torch.no_grad():
            model.lm_head.weight.mul_(2)
        wanted = logits_of(model, processor)
        save_model(model, processor, copy)
        assert torch.equal(logits_of(model, processor), wanted)
        assert torch.equal(logits_of_folder(copy), wanted)
        assert not torch.equal(logits_of_folder(folder), wanted)

    def test_a_loaded_model_does_not_depend_on_its_file(self, copy):
        """Neither parameters nor unused tensors are views of a file that a trainer may write again."""
        model, processor = load_model(copy)
        wanted = logits_of(model, processor)
        before = {name: tensor.clone() for name, tensor in model.unused_tensors.items()}
        file = copy / "model.safetensors"
        with file.open("r+b") as handle:
            handle.seek(file.stat().st_size // 3)
            handle.write(os.urandom(file.stat().st_size // 2))
        assert torch.equal(logits_of(model, processor), wanted)
        assert all(torch.equal(model.unused_tensors[name], before[name]) for name in before)


class TestSavingFails:
    @pytest.fixture
    def loaded(self, folder):
        return load_model(folder)

    def test_existing_checkpoint_survives(self, loaded, copy, folder, monkeypatch):
        def disk_full(*args, **kwargs):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(weights, "save_file", disk_full)
        with pytest.raises(CheckpointError, match=r"cannot write .*copy.*No space left.*free"):
            save_model(*loaded, copy)
        same_bytes(copy, folder)
        assert {p.name for p in copy.parent.iterdir()} == {"copy"}

    def test_existing_checkpoint_survives_a_failed_swap(self, loaded, copy, folder, monkeypatch):
        rename = Path.rename

        def refuse_staging(self, target):
            if Path(target) == copy and not self.name.endswith("-old"):
                raise PermissionError(13, "Permission denied")
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", refuse_staging)
        with pytest.raises(CheckpointError, match="Permission denied"):
            save_model(*loaded, copy)
        same_bytes(copy, folder)
        assert {p.name for p in copy.parent.iterdir()} == {"copy"}

    def test_interruption_leaves_nothing_behind(self, loaded, copy, folder, monkeypatch):
        def interrupted(*args, **kwargs):
            raise KeyboardInterrupt

        monkeypatch.setattr(weights, "save_file", interrupted)
        with pytest.raises(KeyboardInterrupt):
            save_model(*loaded, copy)
        same_bytes(copy, folder)
        assert {p.name for p in copy.parent.iterdir()} == {"copy"}

    @pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
    def test_the_save_after_one_that_was_killed_clears_up(self, loaded, copy, folder):
        code = (
            "import os, signal, sys\n"
            "from emostream import load_model, save_model\n"
            "from emostream.checkpoint import files\n"
            "files.save_file = lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGKILL)\n"
            "save_model(*load_model(sys.argv[1]), sys.argv[2])\n"
        )
        command = [sys.executable, "-P", "-c", code, str(folder), str(copy)]
        assert subprocess.run(command, check=False, timeout=240).returncode == -signal.SIGKILL
        assert len(list(copy.parent.iterdir())) == 2
        same_bytes(copy, folder)
        beside = copy.with_name(".copy-of-mine")
        beside.mkdir()
        save_model(*loaded, copy)
        same_bytes(copy, folder)
        assert {p.name for p in copy.parent.iterdir()} == {"copy", ".copy-of-mine"}

    @pytest.mark.parametrize("content", [{"notes.txt": "mine"}, {"config.json": '{"a": 1}'}])
    def test_a_folder_of_something_else_is_refused(self, loaded, tmp_path, content):
        for name, text in content.items():
            (tmp_path / name).write_text(text)
        with pytest.raises(
            CheckpointError, match=r"is no checkpoint of this family\. Choose another"
        ):
            save_model(*loaded, tmp_path)
        assert {file.name: file.read_text() for file in tmp_path.iterdir()} == content

    def test_a_file_is_refused(self, loaded, tmp_path):
        file = tmp_path / "model"
        file.write_text("mine")
        with pytest.raises(CheckpointError, match="Choose another folder"):
            save_model(*loaded, file)
        assert file.read_text() == "mine"

    def test_parent_that_cannot_be_made(self, loaded, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(CheckpointError, match=r"cannot write .*file"):
            save_model(*loaded, tmp_path / "file" / "below" / "model")

    def test_empty_folders_and_new_parents_are_fine(self, loaded, tmp_path):
        (tmp_path / "empty").mkdir()
        save_model(*loaded, tmp_path / "empty")
        saved = save_model(*loaded, tmp_path / "a" / "b")
        assert saved == tmp_path / "a" / "b"

    @pytest.mark.skipif(os.name != "posix", reason="permission bits")
    @pytest.mark.parametrize("umask", [0o022, 0o077])
    def test_permissions_are_the_users(self, loaded, tmp_path, umask):
        before = os.umask(umask)
        try:
            saved = save_model(*loaded, tmp_path / "saved")
        finally:
            os.umask(before)
        for path in (saved, *saved.rglob("*")):
            assert path.stat().st_mode & 0o777 == (0o777 if path.is_dir() else 0o666) & ~umask

    def test_relative_path_and_link(self, loaded, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert save_model(*loaded, "here") == tmp_path / "here"
        (tmp_path / "link").symlink_to(tmp_path / "here", target_is_directory=True)
        save_model(*loaded, "link")
        assert (tmp_path / "link").is_symlink()
        assert {p.name for p in tmp_path.iterdir()} == {"here", "link"}


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    family = FAMILIES["7b"]
    root = tmp_path_factory.mktemp("towers")
    inside = make_checkpoint(root / "inside", family)
    return family, make_towers(family), logits_of_folder(inside)


class TestTowersOutside:
    """The towers of one checkpoint inside it, beside it, and in the repositories that upstream points at."""

    @pytest.mark.parametrize("spelling", ["4", "5"])
    def test_full_repositories_beside_config(self, case, tmp_path, spelling):
        family, towers, wanted = case
        folder = make_checkpoint(tmp_path / "c", family, outside=TOWER_PREFIXES)
        for part, name in TOWER_FOLDERS.items():
            write_tower_repository(folder / name, part, towers, spelling=spelling)
        model, processor = load_model(folder)
        assert torch.equal(logits_of(model, processor), wanted)
        # SigLIP's pooling head and BERT's pooler belong to the towers; text tower, decoder and masked LM do not.
        kept = {name.removeprefix("model.").split(".")[0] for name in model.unused_tensors}
        assert kept <= {"vision_tower", "bert_model"}
        foreign = ("text_model", "logit_", "decoder", "proj_out", "cls.")
        assert not [n for n in model.unused_tensors if any(word in n for word in foreign)]

    @pytest.mark.parametrize("part", TOWER_PREFIXES)
    @pytest.mark.parametrize("spelling", ["4", "5"])
    def test_one_part_by_override(self, case, tmp_path, part, spelling):
        family, towers, wanted = case
        folder = make_checkpoint(tmp_path / "c", family, outside=[part])
        elsewhere = tmp_path / "my towers" / "some name"
        write_tower_repository(elsewhere, part, towers, spelling=spelling)
        assert torch.equal(logits_of_folder(folder, towers={part: elsewhere}), wanted)
        model, processor = load_model(folder, towers={part: str(elsewhere)})
        saved = save_model(model, processor, tmp_path / "saved")
        assert torch.equal(logits_of_folder(saved), wanted)
        assert all(
            any(name.startswith(prefix) for name in load_tensors(saved))
            for prefix in TOWER_PREFIXES.values()
        )

    def test_folder_that_config_names(self, case, tmp_path, monkeypatch):
        family, towers, wanted = case
        folder = make_checkpoint(tmp_path / "c", family, outside=["vision", "audio"])
        write_tower_repository(tmp_path / "absolute", "vision", towers, spelling="5")
        write_tower_repository(tmp_path / "relative", "audio", towers, spelling="5")
        edit_config(
            folder, mm_vision_tower=str(tmp_path / "absolute"), mm_audio_tower="./relative/"
        )
        monkeypatch.chdir(tmp_path)
        assert torch.equal(logits_of_folder(folder), wanted)

    @pytest.mark.parametrize(
        "name", ["/home/someone/towers/{}", "C:\\models\\{}", "someone/{}", "../{}/"]
    )
    def test_name_from_another_machine_means_the_folder_beside(self, case, tmp_path, name):
        family, towers, wanted = case
        folder = make_checkpoint(tmp_path / "c", family, outside=["vision"])
        write_tower_repository(folder / "moved", "vision", towers, spelling="4")
        edit_config(folder, mm_vision_tower=name.format("moved"))
        assert torch.equal(logits_of_folder(folder), wanted)
        model, processor = load_model(folder)
        saved = save_model(model, processor, tmp_path / "saved")
        assert (saved / "moved" / "config.json").is_file()
        assert json.loads((saved / "config.json").read_text())["mm_vision_tower"] == name.format(
            "moved"
        )
        assert torch.equal(logits_of_folder(saved), wanted)

    def test_bert_without_pooler(self, tmp_path):
        folder = make_checkpoint(tmp_path / "c", outside=["gate"])
        towers = make_towers(Family())
        write_tower_repository(folder / TOWER_FOLDERS["gate"], "gate", towers, spelling="5")
        assert not any("pooler" in name for name in load_tensors(folder / TOWER_FOLDERS["gate"]))
        model, _ = load_model(folder)
        assert not any("pooler" in name for name in model.state_dict())

    def test_whisper_classifier(self, tmp_path):
        """The form that the published checkpoints' own tower has."""
        folder = make_checkpoint(tmp_path / "c", outside=["audio"])
        encoder = make_towers(Family()).whisper.model.encoder.state_dict()
        tower = folder / TOWER_FOLDERS["audio"]
        write_json(tower / "config.json", Family().audio_config())
        tensors = {f"encoder.{name}": tensor.clone() for name, tensor in encoder.items()}
        tensors["projector.weight"] = torch.ones(2, 32)
        save_file(tensors, tower / "model.safetensors")
        model, _ = load_model(folder)
        assert list(model.unused_tensors) == [
            name for name in model.unused_tensors if not name.startswith(AUDIO_PREFIX)
        ] + [f"{AUDIO_PREFIX}projector.weight"]


class TestThroughTransformers:
    @pytest.fixture
    def saved(self, folder, tmp_path):
        return save_model(*load_model(folder), tmp_path / "saved")

    @pytest.mark.parametrize("cls", [EmostreamForCausalLM, AutoModelForCausalLM])
    def test_model_from_pretrained(self, saved, folder, cls):
        wanted = logits_of_folder(folder)
        model, info = cls.from_pretrained(saved, output_loading_info=True)
        assert isinstance(model, EmostreamForCausalLM)
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]
        assert not info["mismatched_keys"]
        expected, processor = load_model(saved)
        for name, tensor in expected.state_dict().items():
            assert torch.equal(model.state_dict()[name], tensor), name
        # Where the weights lie in memory decides which kernels take them, and these round differently.
        torch.testing.assert_close(logits_of(model.eval(), processor), wanted)

    @pytest.mark.parametrize("cls", [EmostreamConfig, AutoConfig])
    @pytest.mark.parametrize("file", ["", "config.json"])
    def test_config_from_pretrained(self, folder, cls, file):
        config = cls.from_pretrained(str(folder / file))
        assert isinstance(config, EmostreamConfig)
        assert config.vision_config.image_size == 64
        assert config.audio_config.max_source_positions == 100
        assert config.gate_config.num_hidden_layers == 2
        assert config.to_published_dict() == load_model(folder)[0].config.to_published_dict()

    def test_config_overrides_and_unused_arguments(self, folder):
        config, unused = EmostreamConfig.from_pretrained(
            folder, num_frames=16, banana=1, return_unused_kwargs=True
        )
        assert config.num_frames == 16
        assert unused == {"banana": 1}

    def test_config_to_dict_and_back(self, folder):
        config = load_model(folder)[0].config
        again = EmostreamConfig.from_dict(config.to_dict())
        assert again.to_dict() == config.to_dict()
        assert again.vision_config.to_dict() == config.vision_config.to_dict()
        assert "HumanOmni_qwen2" in repr(config)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_what_a_trainer_saves(self, folder, tmp_path, dtype):
        """`model.save_pretrained` and `processor.save_pretrained`, nothing else."""
        model, processor = load_model(folder, dtype=dtype)
        wanted = logits_of(model, processor)
        model.save_pretrained(tmp_path / "trained")
        processor.save_pretrained(tmp_path / "trained")
        assert torch.equal(logits_of_folder(tmp_path / "trained", dtype=dtype), wanted)
        if dtype == torch.float32:
            same_bytes(tmp_path / "trained", folder)
        published = json.loads((folder / "config.json").read_text())
        written = json.loads((tmp_path / "trained" / "config.json").read_text())
        assert {key: written.get(key) for key in published} == {
            **published,
            "torch_dtype": str(dtype).removeprefix("torch."),
        }

    def test_what_a_trainer_saves_untied_and_in_shards(self, tmp_path):
        source = make_checkpoint(tmp_path / "source", FAMILIES["7b"])
        model, processor = load_model(source)
        model.save_pretrained(tmp_path / "trained", max_shard_size="200KB")
        processor.save_pretrained(tmp_path / "trained")
        assert (tmp_path / "trained" / "model.safetensors.index.json").is_file()
        same_bytes(tmp_path / "trained", source)
        assert torch.equal(logits_of_folder(tmp_path / "trained"), logits_of(model, processor))

    def test_a_state_dict_given_to_save_is_what_is_saved(self, folder, tmp_path):
        """As distributed trainers do, whose parameters are gathered first."""
        model, processor = load_model(folder)
        state = {name: tensor + 1 for name, tensor in model.state_dict().items()}
        model.save_pretrained(tmp_path / "trained", state_dict=state)
        processor.save_pretrained(tmp_path / "trained")
        again = load_model(tmp_path / "trained")[0].state_dict()
        assert all(torch.equal(again[name], state[name]) for name in again)

    def test_processor_from_pretrained(self, folder):
        processor = EmostreamProcessor.from_pretrained(folder)
        wanted = load_model(folder)[1](frames=random_frames(2), audio=random_audio(1))
        found = processor(frames=random_frames(2), audio=random_audio(1))
        assert all(torch.equal(found[key], wanted[key]) for key in wanted)

    def test_generation_config(self, copy):
        write_json(copy / "generation_config.json", {"max_new_tokens": 7, "eos_token_id": 3})
        assert load_model(copy)[0].generation_config.max_new_tokens == 7
        assert GenerationConfig.from_pretrained(copy).eos_token_id == 3


def break_file(name, content):
    def apply(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)

    return apply


def remove(*names):
    def apply(folder: Path) -> None:
        for name in names:
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return apply


def truncate(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-5])


def only_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def shard_missing(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "lost.safetensors"}}
    write_json(folder / "model.safetensors.index.json", index)


def no_weight_map(folder: Path) -> None:
    remove("model.safetensors")(folder)
    write_json(folder / "model.safetensors.index.json", {"metadata": {}})


def drop_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"], tensors["model.audio_projector.0.bias"]
    save_file(tensors, folder / "model.safetensors")


def change(**values):
    return lambda folder: edit_config(folder, **values)


def change_tower(part, **values):
    return lambda folder: edit_config(folder / TOWER_FOLDERS[part], **values)


POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)

VISION, GATE = TOWER_FOLDERS["vision"], TOWER_FOLDERS["gate"]

#: What is done to the folder -> the error and what its message must say: the file, what was wanted, the remedy.
BROKEN = {
    "no config": (
        remove("config.json"),
        CheckpointError,
        ["copy/config.json is missing", "Name the folder"],
    ),
    "config is no JSON": (
        break_file("config.json", b"{"),
        CheckpointError,
        ["copy/config.json is no readable JSON", "again"],
    ),
    "config is no text": (
        break_file("config.json", b"\xff\xfe\x00"),
        CheckpointError,
        ["copy/config.json is no readable JSON", "again"],
    ),
    "config is a list": (
        break_file("config.json", b"[]"),
        CheckpointError,
        ["copy/config.json holds a list", "again"],
    ),
    "another family": (
        change(model_type="qwen2"),
        ConfigError,
        ["copy/config.json", "'qwen2'", "wanted 'HumanOmni_qwen2'", "Name the folder"],
    ),
    "quantised": (
        change(quantization_config={"quant_method": "bitsandbytes"}),
        ConfigError,
        ["copy/config.json", "quantization_config", "wanted fp32", "Name the checkpoint"],
    ),
    "unknown connector": (
        change(mm_projector_type="stc_connector"),
        ConfigError,
        ["copy/config.json", "'stc_connector'", "all_in_one_small or all_in_one", "family"],
    ),
    "unknown audio projector": (
        change(mm_audio_projector_type="linear"),
        ConfigError,
        ["copy/config.json", "'linear'", "wanted mlp2x_gelu"],
    ),
    "unknown answer style": (
        change(answer_style="terse"),
        ConfigError,
        ["copy/config.json", "'terse'", "wanted reasoned or bare"],
    ),
    "unknown crop": (
        change(frame_crop="head"),
        ConfigError,
        ["copy/config.json", "'head'", "wanted whole or face"],
    ),
    "crop of nothing": (
        change(crop_margin=0.0),
        ConfigError,
        ["copy/config.json", "crop_margin is 0.0", "0.5 to 4"],
    ),
    "connector that does not fit the patches": (
        change(mm_projector_type="all_in_one"),
        ConfigError,
        ["copy/config.json", "odd number of patches", "found 4", "Change"],
    ),
    "width of another tower": (
        change(mm_hidden_size=768),
        ConfigError,
        ["copy/config.json", "mm_hidden_size is 768", "32 wide", "Point the checkpoint"],
    ),
    "width of another audio tower": (
        change_tower("audio", d_model=64),
        ConfigError,
        ["copy/config.json", "audio_hidden_size is 32", "64 wide", "Point the checkpoint"],
    ),
    "layer that the tower lacks": (
        change(mm_vision_select_layer=-5),
        ConfigError,
        ["copy/config.json", "mm_vision_select_layer is -5", "3 layers"],
    ),
    "type of a value": (
        change(hidden_size="64"),
        ConfigError,
        ["copy", "config.json", "hidden_size", "expected int", "Correct"],
    ),
    "type of a tower's value": (
        change_tower("vision", num_hidden_layers="3"),
        ConfigError,
        ["copy", "config.json", "num_hidden_layers", "expected int", "Correct"],
    ),
    "tower without name": (
        change(mm_audio_tower=None),
        ConfigError,
        ["config.json", "named None", "wanted a hub id or a folder", "Name the tower"],
    ),
    "tower named outside the folder": (
        change(mm_audio_tower="towers/.."),
        ConfigError,
        ["config.json", "'towers/..'", "wanted a hub id or a folder", "Name the tower"],
    ),
    "two towers of one name": (
        change(mm_audio_tower="elsewhere/" + VISION),
        ConfigError,
        ["copy/config.json", "same name", "Rename"],
    ),
    "no weights": (
        remove("model.safetensors"),
        CheckpointError,
        ["copy/model.safetensors is missing", "holds config.json and model.safetensors"],
    ),
    "only a pickle": (
        only_pickle,
        CheckpointError,
        ["copy holds pytorch_model.bin", "no model.safetensors", "convert"],
    ),
    "weights that Git LFS has not fetched": (
        break_file("model.safetensors", POINTER),
        CheckpointError,
        ["copy/model.safetensors is a Git LFS pointer", "git lfs pull"],
    ),
    "tokenizer that Git LFS has not fetched": (
        break_file("tokenizer.json", POINTER),
        CheckpointError,
        ["copy/tokenizer.json is a Git LFS pointer", "git lfs pull"],
    ),
    "config that Git LFS has not fetched": (
        break_file("config.json", POINTER),
        CheckpointError,
        ["copy/config.json is a Git LFS pointer", "git lfs pull"],
    ),
    "truncated weights": (
        truncate,
        CheckpointError,
        ["copy/model.safetensors", "bytes) is truncated", "again"],
    ),
    "empty weights": (
        break_file("model.safetensors", b""),
        CheckpointError,
        ["copy/model.safetensors (0 bytes) is truncated", "again"],
    ),
    "missing shard": (
        shard_missing,
        CheckpointError,
        ["copy/lost.safetensors is missing", "model.safetensors.index.json names it", "again"],
    ),
    "index without map": (
        no_weight_map,
        CheckpointError,
        ["model.safetensors.index.json has no weight_map", "again"],
    ),
    "missing tensors": (
        drop_tensor,
        CheckpointError,
        ["copy lacks 2 tensors", "model.audio_projector.0.bias", "again"],
    ),
    "wrong shape": (
        change(intermediate_size=100),
        CheckpointError,
        ["copy/model.safetensors", "is (64, 96), config.json asks for (64, 100)", "different"],
    ),
    "too many layers": (
        change(num_hidden_layers=3),
        CheckpointError,
        ["copy lacks 12 tensors", "model.layers.2.input_layernorm.weight"],
    ),
    "no tower configuration": (
        remove(VISION),
        CheckpointError,
        ["vision tower 'siglip-small'", f"copy/{VISION}", "towers={'vision': FOLDER}"],
    ),
    "tower configuration is no JSON": (
        break_file(f"{VISION}/config.json", b"no"),
        CheckpointError,
        [f"copy/{VISION}/config.json is no readable JSON", "again"],
    ),
    "preprocessor is no object": (
        break_file(f"{VISION}/preprocessor_config.json", b"3"),
        CheckpointError,
        [f"copy/{VISION}/preprocessor_config.json holds a int", "again"],
    ),
    "generation settings are no JSON": (
        break_file("generation_config.json", b"no"),
        CheckpointError,
        ["copy/generation_config.json is no readable JSON", "again"],
    ),
    "no tokenizer": (
        remove("vocab.json", "merges.txt", "tokenizer_config.json"),
        CheckpointError,
        ["copy/vocab.json is missing", "Copy tokenizer.json, or vocab.json and merges.txt"],
    ),
    "half a tokenizer": (
        remove("merges.txt"),
        CheckpointError,
        ["copy/merges.txt is missing", "Copy tokenizer.json, or vocab.json and merges.txt"],
    ),
    "broken tokenizer": (
        break_file("tokenizer.json", b'{"version": 1}'),
        CheckpointError,
        ["tokenizer in", "copy cannot be read", "Copy tokenizer.json"],
    ),
    "broken vocabulary": (
        break_file("vocab.json", b"{"),
        CheckpointError,
        ["tokenizer in", "copy cannot be read", "Copy tokenizer.json"],
    ),
    "no gate vocabulary": (
        remove(f"{GATE}/vocab.txt"),
        CheckpointError,
        ["gate tower", f"copy/{GATE}", "google-bert/bert-base-uncased", "towers={'gate': FOLDER}"],
    ),
}


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No hub and an empty cache, whatever the machine has."""
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


class TestErrors:
    @pytest.mark.parametrize("case", BROKEN)
    def test_broken_folder(self, copy, offline, case):
        damage, error, words = BROKEN[case]
        damage(copy)
        with pytest.raises(error) as caught:
            load_model(copy)
        message = str(caught.value)
        assert "\n" not in message
        for word in words:
            assert word in message, message

    def test_not_a_folder(self, tmp_path):
        for name in (tmp_path / "nowhere", "nowhere", "./nowhere", "~/nowhere/at/all"):
            with pytest.raises(
                CheckpointError, match=r"nowhere.* is neither a folder nor a hub id"
            ):
                load_model(name)

    @pytest.mark.parametrize("name", ["no-such-owner/no-such-model", "bad name/?!"])
    def test_hub_without_network(self, offline, name):
        with pytest.raises(CheckpointError, match=r"the hub does not give it \(.*Check the id"):
            load_model(name)

    @pytest.mark.parametrize(
        ("part", "hub"),
        [
            ("vision", "it is no hub id"),
            ("audio", "the hub does not give openai/whisper-small-random"),
            ("gate", "the hub does not give google-bert/bert-base-uncased"),
        ],
    )
    def test_weights_of_a_tower_nowhere(self, tmp_path, offline, part, hub):
        folder = make_checkpoint(tmp_path / "c", outside=[part])
        if part == "vision":
            edit_config(folder, mm_vision_tower="clip-large")
        with pytest.raises(CheckpointError) as caught:
            load_model(folder)
        message = str(caught.value)
        assert f"files of the {part} tower" in message
        assert hub in message
        assert f"towers={{'{part}': FOLDER}}" in message

    def test_tower_folder_that_only_describes_it(self, tmp_path, offline):
        """As saving writes them: the weights must come from elsewhere, and the message says so."""
        folder = make_checkpoint(tmp_path / "c", outside=["vision"])
        write_json(folder / VISION / "config.json", Family().vision_config())
        with pytest.raises(CheckpointError, match=f"files of the vision tower.*c/{VISION}"):
            load_model(folder)

    def test_tower_folder_with_a_pickle(self, tmp_path, offline):
        folder = make_checkpoint(tmp_path / "c", outside=["vision"])
        write_json(folder / VISION / "config.json", Family().vision_config())
        (folder / VISION / "pytorch_model.bin").write_bytes(b"x")
        with pytest.raises(CheckpointError, match=f"{VISION} holds pytorch_model.bin.*convert"):
            load_model(folder)

    def test_tower_of_another_depth(self, tmp_path):
        folder = make_checkpoint(tmp_path / "c", outside=["vision"])
        towers = make_towers(Family(vision_layers=2))
        write_tower_repository(folder / VISION, "vision", towers, spelling="5")
        edit_config(folder / VISION, vision_config=Family().vision_config())
        with pytest.raises(CheckpointError, match=f"{VISION} lacks 16 tensors.*layers.2"):
            load_model(folder)

    def test_tower_of_another_width(self, tmp_path):
        folder = make_checkpoint(tmp_path / "c", outside=["vision"])
        towers = make_towers(Family(vision_width=48))
        write_tower_repository(folder / VISION, "vision", towers, spelling="5")
        with pytest.raises(ConfigError, match=r"mm_hidden_size is 32 but the tower.*48 wide"):
            load_model(folder)

    def test_override_without_config(self, folder, tmp_path):
        with pytest.raises(
            CheckpointError, match=r"config.json of the vision tower is missing. Name"
        ):
            load_model(folder, towers={"vision": tmp_path})

    def test_override_without_weights(self, tmp_path, offline):
        folder = make_checkpoint(tmp_path / "c", outside=["vision"])
        write_json(tmp_path / "mine" / "config.json", Family().vision_config())
        with pytest.raises(CheckpointError, match=r"mine/model.safetensors is missing"):
            load_model(folder, towers={"vision": tmp_path / "mine"})

    def test_override_of_no_part(self, folder, tmp_path):
        with pytest.raises(ConfigError, match="'face'; the parts are vision, audio and gate"):
            load_model(folder, towers={"face": tmp_path})


class TestNetwork:
    def test_towers_inside_and_folders_beside_need_none(self, folder, monkeypatch):
        def refuse(*args, **kwargs):
            raise AssertionError("the network was asked")

        monkeypatch.setattr(hub, "snapshot_download", refuse)
        monkeypatch.setattr(socket.socket, "connect", refuse)
        load_model(folder)

    def test_builtin_configurations_need_none(self, tmp_path, monkeypatch):
        """The published shape: weights inside, hub ids in the config, no folder; BERT's vocabulary by override."""
        known = {
            "siglip-base-patch16-224": Family().vision_config(),
            "whisper-large-v3": Family().audio_config(),
            "bert-base-uncased": Family().gate_config(),
        }
        monkeypatch.setattr(resolve, "BUILTIN_CONFIGS", known)
        names = {
            "mm_vision_tower": "google/siglip-base-patch16-224",
            "mm_audio_tower": "/data/someone/whisper-large-v3",
        }
        source = make_checkpoint(tmp_path / "c", Family(extra=names))
        wanted = logits_of_folder(
            source,
            towers={
                "vision": source / TOWER_FOLDERS["vision"],
                "audio": source / TOWER_FOLDERS["audio"],
            },
        )
        gate = tmp_path / "gate"
        shutil.move(source / GATE, gate)
        shutil.rmtree(source / TOWER_FOLDERS["vision"])
        shutil.rmtree(source / TOWER_FOLDERS["audio"])
        monkeypatch.setattr(hub, "snapshot_download", None)
        assert torch.equal(logits_of_folder(source, towers={"gate": gate}), wanted)

    def test_hub_repository(self, folder, monkeypatch):
        """What is asked of the hub, and that the folder it gives is used; the hub's client is the driver."""
        asked = []

        def snapshot(repo, **kwargs):
            asked.append((repo, kwargs))
            return str(folder)

        monkeypatch.setattr(hub, "snapshot_download", snapshot)
        monkeypatch.setattr(hub, "_hub_answers", lambda: True)
        model, _ = load_model("someone/model")
        assert model.config.name_or_path == "someone/model"
        ((repo, kwargs),) = asked
        assert repo == "someone/model"
        assert "*.bin" not in kwargs["allow_patterns"]
        assert "*fp32*" in kwargs["ignore_patterns"]
        assert kwargs["local_files_only"] is False

    def test_config_of_a_hub_repository(self, folder, monkeypatch):
        """As `AutoConfig` asks with a hub id: the towers' configurations are fetched, no weights."""
        asked = []

        def snapshot(repo, allow_patterns, **kwargs):
            asked.append((repo, allow_patterns))
            return str(folder)

        monkeypatch.setattr(hub, "snapshot_download", snapshot)
        monkeypatch.setattr(hub, "_hub_answers", lambda: True)
        published = json.loads((folder / "config.json").read_text())
        config = EmostreamConfig.from_dict(published, name_or_path="someone/model")
        assert config.vision_config.image_size == 64
        assert asked == [("someone/model", ["*.json"])]

    def test_gate_vocabulary_is_fetched_without_weights(self, copy, folder, monkeypatch):
        asked = []

        def snapshot(repo, allow_patterns, **kwargs):
            asked.append((repo, allow_patterns))
            return str(folder / GATE)

        monkeypatch.setattr(hub, "snapshot_download", snapshot)
        monkeypatch.setattr(hub, "_hub_answers", lambda: True)
        remove(f"{GATE}/vocab.txt")(copy)
        load_model(copy)
        ((repo, patterns),) = asked
        assert repo == "google-bert/bert-base-uncased"
        assert "vocab.txt" in patterns
        assert not any("safetensors" in pattern for pattern in patterns)

    def test_a_network_that_swallows_packets_does_not_hang(self, monkeypatch, tmp_path):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
            monkeypatch.setattr(hub.constants, "ENDPOINT", endpoint)
            monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
            monkeypatch.setattr(hub, "HUB_TIMEOUT_S", 0.1)
            with pytest.raises(CheckpointError, match=r"LocalEntryNotFoundError.*Check the id"):
                load_model("someone/model")

    @pytest.mark.parametrize(
        ("name", "wanted"),
        [
            ("google/siglip-base-patch16-224", "google/siglip-base-patch16-224"),
            ("someone/my-tower", "someone/my-tower"),
            ("/data/x/siglip-so400m-patch14-384", "google/siglip-so400m-patch14-384"),
            ("./whisper-large-v3/", "openai/whisper-large-v3"),
            ("D:\\towers\\bert-base-uncased", "google-bert/bert-base-uncased"),
            ("/data/x/clip-large", None),
        ],
    )
    def test_hub_ids(self, name, wanted):
        assert hub.hub_id(name) == wanted


def test_nothing_is_left_of_transformers_own_warnings(folder, capfd):
    """A healthy checkpoint loads in silence, with and without transformers' own loader."""
    transformers_logging.set_verbosity_warning()
    load_model(folder)
    EmostreamForCausalLM.from_pretrained(folder)
    assert "UNEXPECTED" not in capfd.readouterr().err


def test_lazy_names():
    """Importing the package or its labels costs a subscriber neither torch nor transformers."""
    code = (
        "import sys, emostream, emostream.labels, emostream.errors, emostream.answers, emostream.model.prompt\n"
        "heavy = {'torch', 'transformers', 'numpy', 'av', 'cv2', 'zmq'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "names = 'AsyncEmotionClient EmostreamError EmotionClient Label Reasoning Recognizer Status __version__ '\n"
        "names += 'listen load_model recognize save_model'\n"
        "assert dir(emostream) == names.split(), dir(emostream)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    with pytest.raises(AttributeError, match="no attribute 'load_modell'"):
        emostream.load_modell  # noqa: B018
