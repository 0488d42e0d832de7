"""Weights as integer codes: the quantizers, and the file in which codes and scales are kept.

In 4 bits a weight [N, K] (N outputs, K inputs) is cut along K into blocks; a block has one scale and a code q from
-8 to 7 for each value, which then stands for q * scale. The two forms in which graphs read them:

``MatMulNBits``: codes U8 [N, K/block, block/2], two a byte along K, lower nibble first, stored as q + 8;
scales [N, K/block].
``DequantizeLinear``: codes U8 [K, N/2], two a byte along N, lower nibble first, in two's complement; scales
[K/block, N]. That is ONNX's INT4 tensor [K, N].

In 8 bits an output's K inputs share one scale, and q goes from -127 to 127. The form is ``DequantizeLinear``:
codes I8 [K, N], scales [N].
"""

from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from safetensors import safe_open

__all__ = [
    "CODES",
    "FORM",
    "SCALES",
    "Bytes",
    "Codes",
    "Floats",
    "Form",
    "dequantized_weights",
    "quantize_blocks",
    "quantize_outputs",
    "transposed",
]

Form = Literal["MatMulNBits", "DequantizeLinear"]
CODES, SCALES = ".codes", ".scales"  # behind a parameter's name
FORM = "form"  # in the file's metadata
_ZERO_POINT = 8
_TO_SIGNED = np.uint8(8)  # the bit in which q + 8 and q in two's complement differ

_LARGEST = 127  # code of 8 bits; without -128 the range is symmetric

Codes = npt.NDArray[np.uint8]
Bytes = npt.NDArray[np.int8]
Floats = npt.NDArray[np.float32]


def quantize_blocks(weight: Floats, block_size: int) -> tuple[Codes, Floats]:
    """A weight [N, K] as MatMulNBits reads it: codes U8 [N, K/block, block/2] and scales float32 [N, K/block].

    K is a multiple of the block. The value of largest magnitude in a block becomes -8 exactly.
    """
    from onnxruntime.quantization import matmul_nbits_quantizer as ort  # slow to import

    config = ort.DefaultWeightOnlyQuantConfig(block_size=block_size, is_symmetric=True)
    inputs_first = np.ascontiguousarray(weight.T)
    codes, scales, _ = ort.DefaultWeightOnlyQuantizer(config).qbits_block_quant(inputs_first)
    return codes, scales


def quantize_outputs(weight: Floats) -> tuple[Bytes, Floats]:
    """A weight [N, K] in 8 bits: codes I8 [N, K] and scales float32 [N].

    The value of largest magnitude of an output becomes 127 or -127.
    """
    scales: Floats = np.abs(weight).max(axis=1) / np.float32(_LARGEST)
    steps = weight / np.where(scales > 0, scales, 1)[:, None]
    codes = np.rint(steps).clip(-_LARGEST, _LARGEST)  # a scale that is hardly a number may be too small
    return codes.astype(np.int8), scales


def transposed(codes: Codes) -> Codes:
    """From MatMulNBits' codes [N, K/block, block/2] to DequantizeLinear's [K, N/2]; N is even."""
    values = _unpacked(codes.reshape(len(codes), -1)) ^ _TO_SIGNED
    packed: Codes = np.bitwise_or(values[0::2], values[1::2] << 4, dtype=np.uint8)
    return np.ascontiguousarray(packed.T)


def dequantized_weights(file: Path, wanted: Container[str] | None = None) -> Iterator[tuple[str, Floats]]:
    """Every weight of a quantized file (or those ``wanted``) by its parameter's name, as float32 [N, K], one at a
    time."""
    with safe_open(file, framework="pt") as tensors:  # of its frameworks NumPy lacks bfloat16
        form = tensors.metadata()[FORM]
        for key in tensors.keys():  # noqa: SIM118  # not a dict
            if key.endswith(CODES):
                name = key.removesuffix(CODES)
                if wanted is not None and name not in wanted:
                    continue
                scales = tensors.get_tensor(name + SCALES).float().numpy()
                yield name, _dequantized(tensors.get_tensor(key).numpy(), scales, form)


def _dequantized(codes: Codes | Bytes, scales: Floats, form: str) -> Floats:
    if codes.dtype == np.int8:
        return codes.T * scales[:, None]
    if form == "DequantizeLinear":
        values = (_unpacked(codes) ^ _TO_SIGNED).T
        scales = scales.T
    else:
        values = _unpacked(codes.reshape(len(codes), -1))
    outputs, blocks = scales.shape
    weight = values.astype(np.float32)
    weight -= _ZERO_POINT
    in_blocks = weight.reshape(outputs, blocks, -1)
    in_blocks *= scales[:, :, None]
    return in_blocks.reshape(outputs, -1)


def _unpacked(codes: npt.NDArray[Any]) -> Codes:
    """Two codes a byte along the last axis, the lower nibble first, to one a byte."""
    values = np.empty((*codes.shape[:-1], 2 * codes.shape[-1]), np.uint8)
    values[..., 0::2] = codes & 15
    values[..., 1::2] = codes >> 4
    return values
