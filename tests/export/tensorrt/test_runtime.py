"""Everything of the TensorRT runtime but the device: shapes, buffers, addresses, parts, and what is refused.

The pretended TensorRT stands at the driver boundary: its execution context has TensorRT's interface, reads its inputs
from the addresses that it was given, computes with the graph's torch module, and writes to those of the outputs.
"""

import ctypes
import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from emostream.inference.cuda_graphs import padded
from emostream.inference.encoders import TorchEncoders
from emostream.model.connector import FrameFeatures
from emostream.model.presets import from_preset
from export.errors import ExportError
from export.manifest import Manifest, sha256
from export.onnx.graphs import GRAPHS, SMALLEST_CONTEXT
from export.tensorrt.probe import Gpu, Host
from export.tensorrt.profiles import choose, profiles_for
from export.tensorrt.progress import Heartbeat, logger_of, monitor_of
from export.tensorrt.runtime import TensorRTEncoders, check_dtypes, inspected_dtypes
from export.tensorrt.sidecar import PlanKey, Sidecar, check_plan, read_sidecar, up_to_date

GPU = Gpu(name="Imaginary 9000", compute_capability="9.0", cuda="13.0")
FLOAT, HALF = SimpleNamespace(name="FLOAT"), SimpleNamespace(name="HALF")
FP16_LAYER = {
    "Name": "gemm",
    "Outputs": [{"Name": "x", "Format/Datatype": "Row major linear FP16 format"}],
}


class PretendedContext:
    def __init__(self, engine):
        self.engine, self.profile = engine, 0
        self.shapes, self.addresses, self.scratch = {}, {}, None

    def set_device_memory(self, memory, size):
        assert size >= self.engine.device_memory_size_v2
        self.scratch = memory

    def set_optimization_profile_async(self, index, stream):
        self.profile = index
        return True

    def set_input_shape(self, name, shape):
        self.shapes[name] = shape
        low, _, high = self.engine.profiles[self.profile][name]
        return all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True))

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return True

    def infer_shapes(self):
        return [name for name in self.engine.inputs if name not in self.shapes]

    def _tensor(self, name, shape):
        count = int(np.prod(shape))
        memory = (ctypes.c_float * count).from_address(self.addresses[name])
        return torch.from_numpy(np.frombuffer(memory, np.float32)).view(shape)

    def _compute(self, *inputs):
        with torch.inference_mode():
            found = self.engine.module(*inputs)
        return found if isinstance(found, tuple) else (found,)

    def get_tensor_shape(self, name):
        found = self._compute(*(torch.zeros(self.shapes[name]) for name in self.engine.inputs))
        return tuple(found[self.engine.outputs.index(name)].shape)

    def execute_async_v3(self, stream):
        assert self.scratch is not None
        if self.engine.fails:
            return False
        found = self._compute(
            *(self._tensor(name, self.shapes[name]) for name in self.engine.inputs)
        )
        for name, value in zip(self.engine.outputs, found, strict=True):
            self._tensor(name, tuple(value.shape)).copy_(value)
        return True


class PretendedEngine:
    device_memory_size_v2 = 1024

    def __init__(self, module, inputs, outputs, static, profiles):
        self.module, self.inputs, self.outputs = module, inputs, outputs
        self.static, self.profiles = static, profiles
        self.layers, self.fails, self.dtype, self.contexts = [FP16_LAYER], False, FLOAT, 0

    @property
    def num_io_tensors(self):
        return len(self.inputs) + len(self.outputs)

    def get_tensor_name(self, index):
        return [*self.inputs, *self.outputs][index]

    def get_tensor_dtype(self, name):
        return self.dtype

    def get_tensor_shape(self, name):
        return (3,) if name in self.static else (-1, 7)

    def create_execution_context(self, strategy):
        assert strategy == "user managed"
        self.contexts += 1
        return PretendedContext(self)

    def create_engine_inspector(self):
        return SimpleNamespace(
            get_engine_information=lambda form: json.dumps({"Layers": self.layers})
        )


class Logger:
    Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2)


class Monitor:
    pass


def pretended_tensorrt(engines):
    """The module; its runtime finds an engine by what the plan's file says."""

    class Runtime:
        engine_host_code_allowed = False

        def __init__(self, logger):
            self.logger = logger

        def deserialize_cuda_engine(self, plan):
            return engines.get(plan.decode())

    return SimpleNamespace(
        __version__="11.4.0.106",
        ILogger=Logger,
        IProgressMonitor=Monitor,
        Runtime=Runtime,
        DataType=SimpleNamespace(FLOAT=FLOAT),
        LayerInformationFormat=SimpleNamespace(JSON="json"),
        ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED="user managed"),
    )


@pytest.fixture(scope="module")
def model():
    return from_preset("tiny", seed=6)[0].eval()


@pytest.fixture
def rig(model, tmp_path):
    """An export directory of pretended plans, with the host that runs them."""
    engines, graphs, sidecars = {}, {}, {}
    for graph in GRAPHS:
        file = tmp_path / f"{graph.name}.onnx"
        file.write_bytes(graph.name.encode())
        plan = tmp_path / f"{graph.name}.plan"
        plan.write_bytes(graph.name.encode())
        profiles = [p.as_dict() for p in profiles_for(graph, model.config, max_sources=2)]
        key = PlanKey(
            onnx_sha256=sha256([file]),
            tensorrt="11.4.0.106",
            compute_capability=GPU.compute_capability,
            gpu=GPU.name,
            precision="fp16",
            profiles=profiles,
            options={"version_compatible": False, "hardware": "none"},
        )
        sidecars[graph.name] = Sidecar(key=key, plan_sha256=sha256([plan]), dtypes={}, seconds=1.0)
        sidecars[graph.name].write(plan)
        inputs, outputs = graph.inputs(model.config), graph.outputs
        module = graph.module(model).eval()
        engines[graph.name] = PretendedEngine(module, inputs, outputs, {"gate"}, profiles)
        graphs[graph.name] = {
            "file": file.name,
            "sha256": sha256([file]),
            "precision": "fp16",
            "inputs": list(inputs),
            "outputs": list(outputs),
        }
    Manifest(
        checkpoint="tiny",
        checkpoint_sha256="",
        target="tensorrt",
        precision="fp16",
        opset=20,
        command="",
        graphs=graphs,
    ).write(tmp_path)
    host = Host(gpu=GPU, tensorrt=pretended_tensorrt(engines))
    return SimpleNamespace(folder=tmp_path, engines=engines, host=host, sidecars=sidecars)


def opened(rig):
    return TensorRTEncoders(rig.folder, torch.device("cpu"), torch.float32, rig.host)


def test_every_batch_gives_what_torch_gives(rig, model):
    encoders, plain = opened(rig), TorchEncoders(model)
    assert encoders.description == "tensorrt 11.4.0.106 Imaginary 9000 fp16"
    gate = torch.tensor([0.2, 0.3, 0.5])
    side = model.config.vision_config.image_size
    for rows in (1, 3, 8, 11, 1):
        pixels = torch.rand(rows, 3, side, side)
        found, wanted = encoders.vision(pixels), plain.vision(pixels)
        torch.testing.assert_close(found.maps, wanted.maps)
        torch.testing.assert_close(found.face, wanted.face)
        blank = FrameFeatures(torch.zeros_like(wanted.maps), torch.zeros_like(wanted.face))
        torch.testing.assert_close(
            encoders.join(blank, wanted, gate), plain.join(blank, wanted, gate)
        )
    # Rows of 1, 4 (for 3) and 8; 11 are 8 and 3.
    assert rig.engines["vision"].contexts == 3
    for clips, frames in ((1, 400), (1, 64), (3, 400)):
        mel = torch.randn(clips, model.config.audio_config.num_mel_bins, frames)
        torch.testing.assert_close(encoders.audio(mel), plain.audio(mel))


def test_results_are_not_overwritten_by_the_next_hop(rig, model):
    encoders = opened(rig)
    side = model.config.vision_config.image_size
    first = encoders.vision(torch.zeros(1, 3, side, side)).maps
    kept = first.clone()
    encoders.vision(torch.ones(1, 3, side, side))
    assert torch.equal(first, kept)


def test_shapes_without_a_profile_are_refused(rig, model):
    bands = model.config.audio_config.num_mel_bins
    with pytest.raises(ExportError, match="no profile for mel"):
        opened(rig).audio(torch.zeros(1, bands, 800))


def test_a_failing_execution_is_an_error(rig, model):
    rig.engines["vision"].fails = True
    side = model.config.vision_config.image_size
    with pytest.raises(ExportError, match="TensorRT could not run: it gives no reason"):
        opened(rig).vision(torch.zeros(1, 3, side, side))


def test_a_plan_of_other_tensors_or_dtypes_is_refused(rig):
    rig.engines["join"].dtype = HALF
    with pytest.raises(ExportError, match="previous of the plan is HALF, wanted FLOAT"):
        opened(rig)
    rig.engines["join"].outputs = ("other",)
    with pytest.raises(ExportError, match="wanted inputs and outputs previous, maps, face, gate, "):
        opened(rig)


def test_a_silent_fallback_is_refused(rig):
    layer = {"Name": "gemm", "Outputs": [{"Name": "x", "Format/Datatype": "Float"}]}
    rig.engines["audio"].layers = [layer, layer]
    with pytest.raises(ExportError, match=r"audio: the plan was built for fp16, but .* fp32 2"):
        opened(rig)


def test_the_inspector_is_read_whatever_its_words():
    layers = [
        {"Outputs": [{"Name": "a", "Format/Datatype": "Half"}]},
        {"Outputs": [{"Name": "b", "Format/Datatype": "Row major linear BF16 format"}]},
        {"Outputs": [{"Name": "tokens", "Format/Datatype": "Float"}]},
        "a name alone, of a plan without details",
    ]
    found = inspected_dtypes(json.dumps({"Layers": layers}), ["tokens"])
    assert found == {"fp16": 1, "bf16": 1}
    check_dtypes("x", "fp16", found)
    check_dtypes("x", "fp16", {})


def test_a_plan_that_tensorrt_cannot_open_is_said(rig):
    del rig.engines["vision"]
    with pytest.raises(ExportError, match=r"vision\.plan: TensorRT .* cannot open the plan"):
        opened(rig)


def test_plans_run_on_gpus_only(rig):
    with pytest.raises(ExportError, match="TensorRT plans run on a GPU, not on cpu"):
        TensorRTEncoders(rig.folder, torch.device("cpu"), torch.float32)


def check(rig, host=None):
    return check_plan(rig.folder / "join.plan", [rig.folder / "join.onnx"], host or rig.host)


def test_a_sidecar_is_believed_as_it_was_written(rig):
    plan = rig.folder / "join.plan"
    assert read_sidecar(plan).key == rig.sidecars["join"].key
    assert up_to_date(plan, rig.sidecars["join"].key)
    assert not up_to_date(plan, dataclasses.replace(rig.sidecars["join"].key, precision="bf16"))
    check(rig)


def test_altered_plans_and_sidecars_are_refused(rig):
    plan, sidecar = rig.folder / "join.plan", rig.folder / "join.plan.json"
    text = sidecar.read_text()
    sidecar.write_text(text.replace("Imaginary 9000", "Imaginary 9001"))
    with pytest.raises(ExportError, match="is not as it was written"):
        check(rig)
    sidecar.write_text(text)
    plan.write_bytes(b"another plan")
    with pytest.raises(ExportError, match=r"join\.plan is missing or is not what"):
        check(rig)
    for damage in ("{", "[]", '{"version": 1}', text.replace('"tensorrt"', '"tensorflow"')):
        sidecar.write_text(damage)
        with pytest.raises(ExportError, match="no sidecar that can be read"):
            check(rig)
    sidecar.unlink()
    with pytest.raises(ExportError, match="no sidecar that can be read"):
        check(rig)


def test_plans_of_other_graphs_gpus_and_versions_are_refused(rig):
    other = dataclasses.replace(GPU, name="Imaginary 4000", compute_capability="8.9")
    with pytest.raises(
        ExportError, match=r"for Imaginary 9000 \(sm_90\); this host has Imaginary 4000 \(sm_89\)"
    ):
        check(rig, dataclasses.replace(rig.host, gpu=other))
    newer = SimpleNamespace(__version__="11.5.0.1")
    with pytest.raises(ExportError, match=r"by TensorRT 11\.4\.0\.106; this host has 11\.5\.0\.1"):
        check(rig, Host(gpu=GPU, tensorrt=newer))
    (rig.folder / "join.onnx").write_bytes(b"retrained")
    with pytest.raises(ExportError, match="from another graph"):
        check(rig)


@pytest.mark.parametrize(
    ("options", "version", "capability", "name", "accepted"),
    [
        ({"version_compatible": True}, "11.5.0.1", "9.0", GPU.name, True),
        ({"version_compatible": True}, "11.3.0.1", "9.0", GPU.name, False),
        ({"version_compatible": True}, "12.0.0.1", "9.0", GPU.name, False),
        ({"hardware": "same_compute_capability"}, "11.4.0.106", "9.0", "Its sister", True),
        ({"hardware": "same_compute_capability"}, "11.4.0.106", "8.9", "Its sister", False),
        ({"hardware": "ampere_plus"}, "11.4.0.106", "8.6", "Its cousin", True),
        ({"hardware": "ampere_plus"}, "11.4.0.106", "7.5", "Its aunt", False),
    ],
)
def test_compatible_plans_go_where_they_may(rig, options, version, capability, name, accepted):
    plan, sidecar = rig.folder / "join.plan", rig.sidecars["join"]
    key = dataclasses.replace(sidecar.key, options=options)
    dataclasses.replace(sidecar, key=key).write(plan)
    gpu = Gpu(name=name, compute_capability=capability, cuda="13.0")
    host = Host(gpu=gpu, tensorrt=SimpleNamespace(__version__=version))
    if accepted:
        assert check(rig, host).key == key
    else:
        with pytest.raises(ExportError, match="this host has"):
            check(rig, host)


def test_profiles_come_from_what_the_live_path_asks_for(model):
    vision, join, audio = (profiles_for(graph, model.config, max_sources=16) for graph in GRAPHS)
    assert [p.most["pixels"][0] for p in vision] == [1, 8, 16]
    assert [p.most["maps"][0] for p in join] == [2, 8, 32]
    assert [p.most["mel"][0] for p in audio] == [1, 16]
    assert {p.least["mel"][2] for p in audio} == {SMALLEST_CONTEXT}
    single = profiles_for(GRAPHS[0], model.config, max_sources=1)
    assert [p.most["pixels"][0] for p in single] == [1, 8]
    shape = vision[0].most["pixels"][1:]
    assert [choose(vision, {"pixels": (rows, *shape)}) for rows in (1, 2, 16, 17)] == [
        0,
        1,
        2,
        None,
    ]
    assert [padded(rows, 12) for rows in (1, 2, 3, 8, 9)] == [1, 2, 4, 8, 12]


def test_a_long_build_says_that_it_goes_on():
    said = []
    with Heartbeat("vision", said.append, every_s=0.01) as heartbeat:
        monitor = monitor_of(pretended_tensorrt({}), heartbeat)
        monitor.phase_start("choosing kernels", None, 4)
        assert monitor.step_complete("choosing kernels", 0)
        while not any("choosing kernels 1/4" in line for line in said):
            pass
        monitor.phase_finish("choosing kernels")
        monitor.interrupted = True
        assert not monitor.step_complete("choosing kernels", 1), "stops the build"


def test_the_first_error_is_the_reason():
    logger = logger_of(pretended_tensorrt({}))
    logger.log(2, "a warning")
    assert logger.reason == "it gives no reason"
    logger.log(1, "out of\n memory")
    logger.log(1, "what followed")
    assert logger.reason == "out of memory"
