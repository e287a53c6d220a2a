"""The bundle's graphs on this CPU: compiled with OpenVINO, in int8 where that is wanted."""

from giqa.openvino._cpu import (
    choose_precision,
    cpu_capabilities,
    cpu_count,
    cpu_options,
    int8_is_fast,
)
from giqa.openvino._graphs import CompiledGraph, CompiledGraphs
from giqa.openvino._int8 import (
    INT8_LEVELS,
    Product,
    along,
    levels_here,
    read_products,
    weight_levels,
    write_products,
)
from giqa.openvino._runtime import core, import_openvino, no_telemetry

__all__ = [
    "INT8_LEVELS",
    "CompiledGraph",
    "CompiledGraphs",
    "Product",
    "along",
    "choose_precision",
    "core",
    "cpu_capabilities",
    "cpu_count",
    "cpu_options",
    "import_openvino",
    "int8_is_fast",
    "levels_here",
    "no_telemetry",
    "read_products",
    "weight_levels",
    "write_products",
]
