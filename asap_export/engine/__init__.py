"""ONNX to TensorRT: which flavor, for which machines, for which sizes of request, and the build itself.

Nothing here imports TensorRT or Polygraphy before an engine is asked for.
"""

from asap_export.engine.build import build_engines
from asap_export.engine.build_memory import WeightSizes, check_memory, peak_memory
from asap_export.engine.flavor import find_flavor, target_capabilities
from asap_export.engine.limits import USUAL, check_limits, default_limits
from asap_export.engine.parts import DecoderPart, decoder_parts
from asap_export.engine.profiles import graph_profiles
from asap_export.engine.tensors import graph_info

__all__ = [
    "USUAL",
    "DecoderPart",
    "WeightSizes",
    "build_engines",
    "check_limits",
    "check_memory",
    "decoder_parts",
    "default_limits",
    "find_flavor",
    "graph_info",
    "graph_profiles",
    "peak_memory",
    "target_capabilities",
]
