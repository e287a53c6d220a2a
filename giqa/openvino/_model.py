"""A bundle's graphs as OpenVINO models that are ready to be compiled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from giqa.bundle import Bundle
from giqa.errors import EngineMismatchError, OutOfMemoryError
from giqa.extras import is_out_of_memory
from giqa.openvino._int8 import Product, quantize, read_products
from giqa.openvino._runtime import core
from giqa.precision import Precision


def prepare(bundle: Bundle, name: str, precision: Precision) -> Any:
    """Read a bundle's graph as an OpenVINO model that is ready to be compiled.

    Args:
        bundle: a verified bundle.
        name: `global_branch`, `local_branch` or `fusion`.
        precision: `f32`, `bf16` or `int8`, for which products are quantized.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        EngineMismatchError: the graph cannot be read, or has not the products to be quantized.
    """
    products = read_products(bundle.int8, name) if precision == "int8" else []
    return _read(bundle.graph(name), products)


def _read(path: Path, products: Sequence[Product]) -> Any:
    opened = core()
    from openvino.passes import ConstantFolding, Manager

    with told(path):
        model = opened.read_model(path)
        # Decompress the weights now: left to the plugin, they are unpacked at every inference.
        manager = Manager()
        manager.register_pass(ConstantFolding())
        manager.run_passes(model)
        quantize(model, products)
        _part_gelus(model)
    return model


def _part_gelus(model: Any) -> None:
    """Keep GELUs of one row an image out of the products before them.

    OpenVINO 2026.4 fuses the two, and computes a single row otherwise than several: in float32 a
    score would depend on the batch, by 4e-6. A product whose result is used twice is not fused.
    """
    from openvino import opset13 as ops

    for node in model.get_ordered_ops():
        if node.get_type_name() != "Gelu" or len(node.get_output_partial_shape(0)) != 2:
            continue
        given = node.input_value(0)
        width = given.get_partial_shape()[1].get_length()
        users = node.output(0).get_target_inputs()
        twice = ops.gelu(ops.concat([given, given], 1), node.get_attributes()["approximation_mode"])
        once = ops.gather(twice, ops.constant(list(range(width))), ops.constant(1))
        for user in users:
            user.replace_source_output(once.output(0))


@contextmanager
def told(path: Path) -> Iterator[None]:
    """OpenVINO's errors as ours."""
    try:
        yield
    except (RuntimeError, MemoryError) as e:
        if is_out_of_memory(e):
            raise OutOfMemoryError("its graphs do not fit into memory", item=str(path)) from e
        raise EngineMismatchError(
            f"OpenVINO cannot compile it: {str(e).splitlines()[0]}", item=str(path)
        ) from e
