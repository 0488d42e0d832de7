"""ONNX graphs to serialized engines, through Polygraphy."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import onnx

from asap_export.bundle import EngineInfo, GraphInfo, Manifest, Profile
from asap_export.bundle.manifest import Flavour, GraphName
from asap_export.engine.attention import decomposed_attention, spell_out_attention
from asap_export.engine.flavor import Tools, load_tools
from asap_export.engine.monitor import BuildProgress, progress_monitor, quiet_logger
from asap_export.engine.profiles import graph_profiles
from asap_export.errors import UserError
from asap_export.progress import Progress, ProgressCallback, no_progress

__all__ = ["build_engine", "build_engines"]


def build_engines(
    folder: Path,
    manifest: Manifest,
    flavor: Flavour,
    capabilities: Sequence[str],
    progress: ProgressCallback = no_progress,
) -> tuple[EngineInfo, ...]:
    """Build ``engines/<graph>.<flavor>.engine`` in ``folder`` for every graph of ``manifest``.

    ``folder`` holds the graphs; ``capabilities`` come from ``target_capabilities``. Raises UserError with
    TensorRT's own words where it refuses, KeyboardInterrupt where the user does; no part of an engine stays.
    """
    return tuple(
        build_engine(
            folder,
            name,
            manifest.graphs[name],
            graph_profiles(
                manifest.graphs[name], manifest.model, manifest.pruning, manifest.budget, manifest.limits
            ),
            flavor,
            capabilities,
            progress,
        )
        for name in get_args(GraphName)
    )


def build_engine(
    folder: Path,
    name: GraphName,
    graph: GraphInfo,
    profiles: Sequence[Profile],
    flavor: Flavour,
    capabilities: Sequence[str],
    progress: ProgressCallback = no_progress,
) -> EngineInfo:
    """Build the engine of one graph, with all ``profiles`` over one copy of the weights."""
    file = f"engines/{name}.{flavor}.engine"
    tools = load_tools(flavor)
    watch = BuildProgress(f"Build {Path(file).name}", progress)
    progress(Progress(watch.stage, 0.0, "parse"))
    model = onnx.load(folder / graph.file, load_external_data=False)
    decomposed = decomposed_attention(model)
    with (
        _parsable(folder / graph.file, model) as path,
        watch.watching_interrupts(),
        _one_line_errors(tools, file),
    ):
        engine = _serialized(tools, path, profiles, capabilities, watch)
        (folder / file).parent.mkdir(exist_ok=True)
        _write(folder / file, engine)
    progress(Progress(watch.stage, 1.0))
    return EngineInfo(
        name, file, flavor, tools.trt.__version__, tuple(capabilities), tuple(profiles), decomposed
    )


@contextmanager
def _parsable(path: Path, model: onnx.ModelProto) -> Iterator[Path]:
    """The file to parse: the graph itself, or beside it, where its weights are found, a changed copy."""
    changed = spell_out_attention(model)
    if changed is None:
        yield path
        return
    copy = path.with_name(f".{path.name}.parsable")
    try:
        onnx.save(changed, copy)
        yield copy
    finally:
        copy.unlink(missing_ok=True)


@contextmanager
def _one_line_errors(tools: Tools, file: str) -> Iterator[None]:
    """Whatever TensorRT and Polygraphy say goes to nobody; the last error becomes a UserError."""
    from polygraphy.exception import PolygraphyException
    from polygraphy.logger import G_LOGGER

    util = tools.loaders.util
    previous, util.TRT_LOGGER = util.TRT_LOGGER, quiet_logger(tools.trt)
    logger = util.TRT_LOGGER
    try:
        with G_LOGGER.verbosity(G_LOGGER.CRITICAL + 1):
            yield
    except PolygraphyException as error:
        said = logger.errors[-1] if logger.errors else str(error)
        raise UserError(
            f"expected TensorRT to build {file}, found: {' '.join(said.split())[:300]}; "
            "use --engine ort for the graphs alone"
        ) from error
    finally:
        util.TRT_LOGGER = previous


def _serialized(
    tools: Tools, path: Path, profiles: Sequence[Profile], capabilities: Sequence[str], watch: BuildProgress
) -> Any:
    """The engine's bytes, in TensorRT's own memory."""
    loaders = tools.loaders
    # Every attention layer may be decomposed: where TensorRT has a kernel it takes that all the same.
    network = loaders.set_decomposable_attentions(loaders.network_from_onnx_path(str(path)))

    def config(builder: Any, network: Any) -> Any:
        created = tools.create_config(
            builder,
            network,
            capabilities,
            profiles=[_polygraphy_profile(loaders, profile) for profile in profiles],
            profiling_verbosity=tools.trt.ProfilingVerbosity.LAYER_NAMES_ONLY,
            progress_monitor=progress_monitor(tools.trt, watch),
        )
        # Scores are float32, and TF32, which TensorRT takes by default, has ten bits of mantissa.
        created.clear_flag(tools.trt.BuilderFlag.TF32)
        return created

    return loaders.engine_bytes_from_network(network, config)


def _polygraphy_profile(loaders: Any, profile: Profile) -> Any:
    ranges = loaders.Profile()
    for name, range_ in (profile.shapes | profile.values).items():
        ranges.add(name, range_.min, range_.opt, range_.max)
    return ranges


def _write(path: Path, engine: Any) -> None:
    """Straight from TensorRT's memory: an engine may be as large as what is left of it."""
    try:
        with path.open("wb") as file:
            file.write(memoryview(engine))
    except BaseException:
        path.unlink(missing_ok=True)
        raise
