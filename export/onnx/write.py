"""One graph of a checkpoint to one ONNX file of one precision, checked for being what was asked for."""

import contextlib
import copy
import hashlib
import inspect
import json
import logging
import math
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

import emostream.model.connector
import emostream.model.towers
import export.onnx.graphs
from emostream.model.configuration import EmostreamConfig
from emostream.model.modeling import EmostreamForCausalLM
from export.environment import import_onnx, import_onnxruntime, installed_versions
from export.errors import ExportError
from export.manifest import graph_files, sha256
from export.onnx.graphs import OPSET, Graph
from export.onnx.precision import DTYPES, Precision

#: Protocol buffers end at 2 GB; a larger graph keeps its weights in a file beside it.
EXTERNAL_DATA_BYTES = 1_500_000_000
#: Least part of the floating-point weights that must have the dtype asked for; a scalar or two may stay float32.
DTYPE_SHARE = 0.99
FLOATS = ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE")


def export_graph(
    graph: Graph, model: EmostreamForCausalLM, precision: Precision, folder: Path, key: str
) -> dict[str, Any]:
    """Write `<name>.onnx` into `folder`.

    Args:
        graph: Which.
        model: In float32 on the CPU.
        precision: Of the arithmetic inside.
        folder: Export directory in the making.
        key: From `graph_key`, kept with the graph.

    Returns:
        The graph's entry in the manifest.

    Raises:
        ExportError: Something that exporting needs is not installed, or the weights have not the dtype asked for.
    """
    onnx = import_onnx()
    begun_s = time.perf_counter()
    file = folder / f"{graph.name}.onnx"
    if precision == "int8":
        source = folder / f"{graph.name}.float32.onnx"
        _export(graph, model, precision, source)
        _quantize(source, file)
        for part in folder.glob(f"{source.stem}*"):
            part.unlink()
    else:
        _export(graph, model, precision, file)
    onnx.checker.check_model(str(file))
    facts = _inspect(onnx, file)
    _check_dtypes(graph.name, precision, facts)
    entry = {"file": file.name, "key": key, "precision": precision, **facts}
    files = graph_files(folder, entry)
    return entry | {
        "sha256": sha256(files),
        "bytes": sum(part.stat().st_size for part in files),
        "inputs": list(graph.inputs(model.config)),
        "outputs": list(graph.outputs),
        "seconds": round(time.perf_counter() - begun_s, 1),
    }


def graph_key(graph: Graph, model: EmostreamForCausalLM, precision: Precision) -> str:
    """Digest of all that decides what a graph computes: its weights, their configuration, code and versions."""
    config: EmostreamConfig = model.config
    versions = installed_versions()
    packages = ["torch", "transformers", "onnx", "onnxscript"]
    if precision == "int8":
        packages += ["onnxruntime", "onnxruntime-gpu"]
    code = (
        emostream.model.towers,
        emostream.model.connector,
        export.onnx.graphs,
        sys.modules[__name__],
    )
    settled = {
        "graph": graph.name,
        "precision": precision,
        "opset": OPSET,
        "versions": {package: versions.get(package) for package in packages},
        "code": [hashlib.sha256(inspect.getsource(m).encode()).hexdigest() for m in code],
        "vision": config.vision_config.to_dict(),
        "audio": config.audio_config.to_dict(),
        "connector": config.mm_projector_type,
        "layer": config.mm_vision_select_layer,
    }
    digest = hashlib.sha256(json.dumps(settled, sort_keys=True, default=str).encode())
    for name, tensor in graph.module(model).state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(memoryview(tensor.detach().cpu().contiguous().numpy()).cast("B"))
    return digest.hexdigest()


def _export(graph: Graph, model: EmostreamForCausalLM, precision: Precision, file: Path) -> None:
    module = graph.module(model).eval()
    if DTYPES[precision] is not torch.float32:
        module = copy.deepcopy(module).to(DTYPES[precision])
    # An example of two: the exporter takes a batch of one for a constant.
    case = next(case for case in graph.cases if case.batch > 1)
    with _quiet(), torch.no_grad():
        try:
            program = torch.onnx.export(
                module,
                graph.example(model.config, case),
                dynamo=True,
                opset_version=OPSET,
                input_names=graph.inputs(model.config),
                output_names=graph.outputs,
                dynamic_shapes=graph.dynamic(model.config),
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise ExportError(
                f"{graph.name}: torch {torch.__version__} cannot export the graph: {_reason(error)}. Serve the "
                "checkpoint without --engines, and please report this."
            ) from error
        assert program is not None
        program.save(str(file), external_data=_nbytes(module) > EXTERNAL_DATA_BYTES)


def _reason(error: BaseException) -> str:
    """The first line of the exception that all others came of."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines() or ["it gives no reason"]
    return f"{type(error).__name__}: {lines[0]}"


def _quantize(source: Path, file: Path) -> None:
    """Dynamic int8: weights per channel, activations per tensor as they come."""
    import_onnxruntime()
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet():
        quantize_dynamic(
            source,
            file,
            op_types_to_quantize=["MatMul"],  # ONNX Runtime has no kernel for int8 convolutions
            per_channel=True,
            # Signed weights saturate in the sums of CPUs without VNNI.
            weight_type=QuantType.QUInt8,
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Exporters warn of operators of packages that we do not use, and advise preprocessing that harms."""
    loggers = [logging.getLogger("torch.onnx"), logging.getLogger()]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _nbytes(module: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in module.parameters())


def _inspect(onnx: Any, file: Path) -> dict[str, Any]:
    """Nodes, weights by dtype, and shapes of the inputs and outputs."""
    graph = onnx.load(str(file), load_external_data=False).graph
    weights: Counter[str] = Counter()
    for tensor in graph.initializer:
        weights[onnx.TensorProto.DataType.Name(tensor.data_type)] += math.prod(tensor.dims)
    return {
        "nodes": len(graph.node),
        "quantized": sum(node.op_type == "MatMulInteger" for node in graph.node),
        "weights": dict(weights.most_common()),
        "shapes": {
            value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
            for value in (*graph.input, *graph.output)
        },
    }


def _check_dtypes(name: str, precision: Precision, facts: dict[str, Any]) -> None:
    """Refuse a graph that only claims its precision."""
    weights = facts["weights"]
    if precision == "int8":
        if not facts["quantized"]:
            raise ExportError(f"{name}: nothing in the graph was made int8. Use --precision fp32.")
        return
    wanted = {"fp32": "FLOAT", "fp16": "FLOAT16", "bf16": "BFLOAT16"}[precision]
    floats = sum(weights.get(dtype, 0) for dtype in FLOATS)
    share = weights.get(wanted, 0) / floats
    if share < DTYPE_SHARE:
        raise ExportError(
            f"{name}: asked for {precision}, but {1 - share:.0%} of the graph's weights have another type "
            f"({', '.join(f'{dtype} {count}' for dtype, count in weights.items())}). Please report this."
        )
