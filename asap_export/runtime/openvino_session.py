"""Graphs in OpenVINO, on its CPU plugin. Caches that only grow stay inside, where a step adds to them in place."""

import importlib
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from asap_export.errors import UserError
from asap_export.runtime.cache import present_name
from asap_export.runtime.held_caches import HeldCaches, cache_arrays
from asap_export.runtime.session import Tensor

__all__ = ["OpenVinoSession", "Precision", "StatefulSession", "choose_precision", "missing_openvino"]

Precision = Literal["auto", "f32", "bf16"]

_Array = npt.NDArray[Any]
_CACHE, _PRESENT = "past_key_values.", "present."
# OpenVINO's name for which row of a cache each row goes on from; its attention wants to be told.
_ROWS = "beam_idx"
_UNKNOWN = -1


def choose_precision(precision: Precision = "auto", threads: int | None = None) -> str:
    """What "auto" stands for here: "bf16" where the CPU has instructions for it, as OpenVINO itself decides, and
    there is more than one thread; else "f32".

    On one thread OpenVINO divides by zero while it packs weights for bf16 (openvinotoolkit/openvino#33300), which
    ends the process. Raises UserError for names that are none, and for bf16 where it cannot be.
    """
    if precision not in get_args(Precision):
        raise UserError(f"expected a precision among {', '.join(get_args(Precision))}, found {precision}")
    able = "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "bf16" and not able:
        raise UserError("expected a CPU with instructions for bf16, found none; use --precision f32")
    alone = able and _threads_taken(threads) < 2
    if precision == "bf16" and alone:
        raise UserError("expected at least 2 threads for bf16 in OpenVINO, found 1; use --precision f32")
    return ("bf16" if able and not alone else "f32") if precision == "auto" else precision


def _threads_taken(threads: int | None) -> int:
    """How many OpenVINO takes, which only a graph that it has compiled says."""
    openvino, operators = _openvino(), importlib.import_module("openvino.opset13")
    nothing = operators.parameter(openvino.PartialShape([1]), openvino.Type.f32)
    graph = openvino.Model([operators.relu(nothing)], [nothing], "nothing")
    taken: int = _compiled(graph, Path("nothing"), "f32", threads).get_property("INFERENCE_NUM_THREADS")
    return taken


class OpenVinoSession:
    """A ``Session`` on one ONNX file; device tensors are arrays.

    ``precision``: "f32" or "bf16", in which products are computed; what goes in and out is in the graph's own
    types. ``threads``: by default one per core. Raises UserError where OpenVINO cannot load the graph.
    """

    def __init__(self, file: Path, precision: str, threads: int | None = None) -> None:
        _check_threads(threads)
        self._compiled = _compiled(_read(file), file, precision, threads)
        self._request = self._compiled.create_infer_request()
        self.inputs = tuple(map(_name, self._compiled.inputs))
        self.caches = tuple(name for name in self.inputs if name.startswith(_CACHE))
        self._lock = Lock()

    def run(
        self,
        inputs: Mapping[str, Tensor],
        on_host: Collection[str] = (),
        into: Mapping[str, Tensor] | None = None,
        behind: int = 0,
    ) -> dict[str, Tensor]:
        """As ``Session`` has it; of caches the places ``behind`` so many alone."""
        assert not into, "OpenVINO keeps its caches where it made them"
        with self._lock:
            return _run(self._request, self._compiled, inputs, behind)

    def longest(self, name: str, axis: int) -> int | None:
        return None


@dataclass
class _Places:
    """A request of OpenVINO's with caches [rows, kv_heads, filled, head_dim] inside, of numbers of ``itemsize``
    bytes, by the decoder's inputs ``names``, whose type is ``dtype``."""

    request: Any
    filled: int
    rows: int
    kv_heads: int
    head_dim: int
    itemsize: int
    names: Collection[str]
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class _Held(HeldCaches):
    """The first ``length`` places of these caches, which never change; what lies behind them belongs to the first
    run that goes on from there."""

    places: _Places
    length: int

    @property
    def shape(self) -> tuple[int, ...]:
        return self.places.rows, self.places.kv_heads, self.length, self.places.head_dim

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.places.itemsize  # OpenVINO may hold more places than are filled

    def arrays(self) -> dict[str, _Array]:
        states = _states(self.places.request)
        return {
            name: np.asarray(states[name].state.data)[:, :, : self.length].astype(self.places.dtype)
            for name in self.places.names
        }


class StatefulSession:
    """A ``Session`` on a graph whose caches only grow: as device tensors they are handles.

    A run goes on from its caches in place. Where another run did that before, from the same place, it goes on from
    a copy of them. Caches may be arrays too, and are given as such for outputs in ``on_host``.
    """

    def __init__(self, file: Path, precision: str, threads: int | None = None) -> None:
        _check_threads(threads)
        model = _read(file)
        self._caches = tuple(name for each in model.inputs if (name := _name(each)).startswith(_CACHE))
        self._dtype = np.dtype(model.input(self._caches[0]).element_type.to_dtype())
        self._rows_from = next(_name(each) for each in model.inputs if _name(each) not in self._caches)
        _keep_inside(model, self._caches, self._rows_from)
        kept, self._itemsize = {"KV_CACHE_PRECISION": precision}, {"f32": 4, "bf16": 2}[precision]
        self._compiled = _compiled(model, file, precision, threads, kept)
        others = (_name(each) for each in self._compiled.inputs)
        self.inputs = (*(name for name in others if name != _ROWS), *self._caches)
        self._lock = Lock()

    def run(
        self,
        inputs: Mapping[str, Tensor],
        on_host: Collection[str] = (),
        into: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        assert not into, "OpenVINO keeps its caches where it made them"
        with self._lock:
            places = self._continued({name: inputs[name] for name in self._caches})
            given = {name: value for name, value in inputs.items() if name not in self._caches}
            rows, new = np.shape(given[self._rows_from])[:2]
            given[_ROWS] = np.arange(rows, dtype=np.int32)
            past, places.filled = places.filled, _UNKNOWN  # a run that is broken off may have added to them
            outputs = _run(places.request, self._compiled, given)
            places.filled = past + new
            held = _Held(places, places.filled)
            outputs |= {present_name(name): held for name in self._caches}
            if any(present_name(name) in on_host for name in self._caches):
                outputs |= {present_name(name): array for name, array in held.arrays().items()}
            return outputs

    def longest(self, name: str, axis: int) -> int | None:
        return None

    def _continued(self, caches: Mapping[str, Tensor]) -> _Places:
        """A request that holds these caches and no more."""
        first = next(iter(caches.values()))
        if isinstance(first, _Held) and first.places.filled == first.length:
            return first.places
        arrays = cache_arrays(caches)
        request = self._compiled.create_infer_request()
        request.reset_state()
        rows, kv_heads, length, head_dim = next(iter(arrays.values())).shape
        if length:
            openvino = _openvino()
            for name, state in _states(request).items():
                state.state = openvino.Tensor(np.ascontiguousarray(arrays[name], np.float32))
        return _Places(request, length, rows, kv_heads, head_dim, self._itemsize, self._caches, self._dtype)


def _check_threads(threads: int | None) -> None:
    if threads is not None and threads < 1:
        raise UserError(f"expected --threads of at least 1, found {threads}; leave it out for one per core")


def _openvino() -> Any:
    try:
        return importlib.import_module("openvino")
    except ImportError as error:
        raise missing_openvino() from error


def missing_openvino() -> UserError:
    return UserError(
        'expected the Python package openvino, found none; pip install "asap-export[openvino]" or use '
        "--provider cpu"
    )


@cache
def _core() -> Any:
    return _openvino().Core()


def _read(file: Path) -> Any:
    try:
        return _core().read_model(file)
    except RuntimeError as error:
        raise _not_loaded(file, error) from error


def _compiled(
    model: Any, file: Path, precision: str, threads: int | None, more: Mapping[str, str] | None = None
) -> Any:
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": precision,
        # Otherwise activations are rounded to 8 bits where weights are quantized.
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
        **(more or {}),
    }
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    try:
        return _core().compile_model(model, "CPU", settings)
    except RuntimeError as error:
        raise _not_loaded(file, error) from error


def _not_loaded(file: Path, error: RuntimeError) -> UserError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = next((line for line in reversed(lines) if not line.startswith("Exception from")), lines[0])
    version = _openvino().__version__.partition("-")[0]
    return UserError(f"expected a graph for OpenVINO {version} in {file}, found: {said[:300]}")


def _run(request: Any, compiled: Any, inputs: Mapping[str, Tensor], behind: int = 0) -> dict[str, Tensor]:
    """All outputs, of caches the places ``behind`` so many, copied: the next run writes over OpenVINO's own."""
    wanted = {_name(each) for each in compiled.inputs}
    given = {name: np.asarray(value, order="C") for name, value in inputs.items() if name in wanted}
    request.infer(given, share_inputs=True)
    outputs: dict[str, Tensor] = {}
    for number, output in enumerate(compiled.outputs):
        array = request.get_output_tensor(number).data
        if behind and any(name.startswith(_PRESENT) for name in output.names):
            array = array[:, :, behind:]
        outputs |= dict.fromkeys(output.names, np.array(array))  # some have another one's names too
    return outputs


def _name(port: Any) -> str:
    name: str = port.any_name
    return name


def _states(request: Any) -> dict[str, Any]:
    """A request's states by the decoder's input that they stand for."""
    return {state.name.partition("present.")[0]: state for state in request.query_state()}


def _keep_inside(model: Any, caches: Collection[str], rows_from: str) -> None:
    """Turn caches from inputs and outputs into states, in the form that OpenVINO's CPU plugin takes for attention
    with caches, one operator that adds to them in place: a read, a choice of rows, new places behind, attention.
    States are float32, as the plugin computes; what they are kept in is a setting of its own.
    """
    openvino, operators = _openvino(), importlib.import_module("openvino.opset13")
    rows = operators.parameter(openvino.PartialShape([-1]), openvino.Type.i32, name=_ROWS)
    rows.output(0).get_tensor().add_names({_ROWS})
    model.add_parameters([rows])
    for name in caches:
        past = model.input(name)
        readers = list(past.get_node().output(0).get_target_inputs())
        stored = past.element_type
        past.get_node().set_element_type(openvino.Type.f32)
        chosen = operators.gather(past.get_node().output(0), rows.output(0), operators.constant(0))
        read = operators.convert(chosen, stored) if stored != openvino.Type.f32 else chosen
        for reader in readers:
            reader.replace_source_output(read.output(0))
        if stored != openvino.Type.f32:
            present = model.output(present_name(name)).get_node()
            present.input(0).replace_source_output(operators.convert(present.input_value(0), "f32").output(0))
    model.validate_nodes_and_infer_types()
    transformations = importlib.import_module("openvino._offline_transformations")
    transformations.apply_make_stateful_transformation(model, {name: present_name(name) for name in caches})
    shape = operators.shape_of(model.input(rows_from), output_type="i64")
    batch = operators.gather(shape, operators.constant(np.array([0])), operators.constant(0))
    for node in model.get_ops():
        if node.get_type_name() == "ReadValue":
            _, heads, _, size = node.get_output_partial_shape(0)
            rest = operators.constant(np.array([heads.get_length(), 0, size.get_length()]))
            empty = operators.broadcast(
                operators.constant(np.float32(0)), operators.concat([batch, rest], axis=0)
            )
            node.set_arguments([empty.output(0)])
    model.validate_nodes_and_infer_types()
