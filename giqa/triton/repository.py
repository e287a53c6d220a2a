"""The one renderer of Triton model repositories: from a bundle's manifest to configs and files.

Both devices have the same ensembles with the same tensors (see `giqa.contract`). On a CPU the
composing models run in Triton's Python backend (DALI and OpenVINO), on a GPU in its DALI and
TensorRT backends, with no Python on the way.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from giqa.bundle import Bundle, Manifest, Tensors
from giqa.contract import (
    ENSEMBLES,
    FUSION,
    GIQA,
    GIQA_BYTES,
    GIQA_ISOLATED,
    GIQA_MAP,
    GIQA_PRECISE,
    GIQA_VIEWS,
    GRAPHS,
    IMAGE,
    PREPROCESS,
    PREPROCESS_BYTES,
    PREPROCESS_ISOLATED,
    PREPROCESS_PRECISE,
    PREPROCESSES,
)
from giqa.errors import MissingExtraError
from giqa.probe import Limits
from giqa.triton.gpu import Memory, add_cuda_graphs, plan
from giqa.triton.tensors import (
    Device,
    composing_models,
    ensembles,
    inputs_of,
    max_batch_of,
    outputs_of,
    tensor_shapes,
)

INFLIGHT_SINCE = (2, 64)
"""First Triton that knows `max_inflight_requests` of ensembles; older ones refuse the config."""
SAFE_REJECTION_SINCE = (2, 69)
"""First Triton whose ensembles survive a full queue between two steps (core pull requests 466 and
483): in older ones a worker thread then waits for ever on a freed lock. What is rendered limits no
queue between steps, but an operator may."""

_HEADER = "# Rendered by `python -m build repository` from the bundle's manifest: do not edit.\n"
_PREPROCESS_OF = {
    GIQA: PREPROCESS,
    GIQA_MAP: PREPROCESS,
    GIQA_PRECISE: PREPROCESS_PRECISE,
    GIQA_ISOLATED: PREPROCESS_ISOLATED,
    GIQA_BYTES: PREPROCESS_BYTES,
}
_DELAY_US = 100
CPU_RESOURCE = "giqa_cpu"
"""Rate limiter's resource: who executes on the CPU."""
CPU_SLOTS = 3
"""How much of it there is for each of `Options.instances`; an instance of a branch or of fusion
takes one. An instance of preprocessing takes two, so it starts only when no more than one other
works: the queue builds up, and refuses, where work comes in. With less, a branch could not begin
while preprocessing hands over, and both branches not together: a release wakes one of those that
wait."""
_DECODING_SLOTS = 2


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a repository is rendered for.

    Attributes:
        device: `cpu` or `gpu`.
        bundle: how the server's models find the bundle: a packaged name or a folder.
        precision: the engines' precision, as it stands in result rows (`openvino-bf16`).
        threads: CPU threads a model uses; 0: all.
        limits: limits on what is decoded (CPU; on a GPU the client keeps them).
        max_batch: most images a composing model takes at once.
        max_queue: most requests that wait for a preprocess model; more are rejected.
        timeout_s: longest wait for preprocessing in seconds; a request may ask for less.
        instances: instances of each composing model that work at the same time, see
            `instances_on_cpu`; 0, on a GPU only: chosen by `giqa.triton.gpu`.
        memory: most bytes that tensors may take on a GPU; None: as many as they need.
        cuda_graphs: capture CUDA graphs of the engines (GPU).
        cache: let Triton answer repeated requests of `giqa` from its cache.
        server: Triton's version.
    """

    device: Device = "cpu"
    bundle: str = "giqa-s"
    precision: str = "auto"
    threads: int = 0
    limits: Limits = field(default_factory=Limits)
    max_batch: int = 8
    max_queue: int = 64
    timeout_s: float = 10.0
    instances: int = 1
    memory: int | None = None
    cuda_graphs: bool = False
    cache: bool = False
    server: tuple[int, int] = (2, 51)

    @property
    def engine(self) -> str:
        """Runtime and precision, such as `openvino-bf16`."""
        return f"{'openvino' if self.device == 'cpu' else 'tensorrt'}-{self.precision}"


def memory_of(manifest: Manifest, options: Options) -> Memory:
    """Plan a GPU's instances and the memory of its tensors.

    Args:
        manifest: for the tensors' sizes.
        options: for batch, queue, instances and the limit.

    Raises:
        UsageError: the tensors do not fit into the limit.
    """
    limited = options.server >= INFLIGHT_SINCE
    return plan(
        manifest.tensors,
        max_batch=options.max_batch,
        in_flight=_in_flight(options) if limited else options.max_queue + 3 * options.max_batch,
        instances=options.instances,
        limit=options.memory,
    )


def instances_on_cpu(name: str, options: Options) -> int:
    """Tell how many instances, and so processes, a composing model has on a CPU.

    Preprocessing has a spare: Triton looks at a queue with a policy when a request comes in while
    an instance is idle, or after half a second.

    Args:
        name: the model.
        options: for `instances`.
    """
    return options.instances + (name in PREPROCESSES and name != PREPROCESS_ISOLATED)


def _in_flight(options: Options) -> int:
    return 4 * options.max_batch


def render(bundle: Bundle, options: Options) -> dict[str, bytes]:
    """Render a model repository.

    Args:
        bundle: the bundle to serve.
        options: what for.

    Returns:
        Contents by path within the repository. On a GPU the engines
        (`<branch>/1/model.plan`) are missing: they are built where they run.

    Raises:
        MissingExtraError: tritonclient (or, for a GPU, DALI) is not installed.
        UsageError: what a GPU's tensors need is more than `options.memory`.
    """
    known = composing_models(options.device)
    files: dict[str, bytes] = {}
    image = bundle.self_test_image.read_bytes()
    for name in (*known, *ensembles(options.device)):
        config = _ensemble(name, bundle, options) if name in ENSEMBLES else None
        config = config or _composing(name, bundle, options, len(image))
        files[f"{name}/config.pbtxt"] = (_HEADER + to_text(config)).encode()
        if name in ENSEMBLES:
            files[f"{name}/1/.gitkeep"] = b""  # Triton wants the version's folder, git a file
        elif options.device == "cpu":
            files[f"{name}/1/model.py"] = _python(name).encode()
        elif name in PREPROCESSES:
            files[f"{name}/1/model.dali"] = _dali(name, bundle.manifest.tensors, options)
        if name in PREPROCESSES and name != PREPROCESS_BYTES:
            files[f"{name}/warmup/{bundle.self_test_image.name}"] = image
    return files


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a repository: all of it or nothing.

    Args:
        folder: its place; what lies there is replaced.
        files: contents by path.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for name, content in files.items():
            path = staging / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        staging.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        staging.rename(folder)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def to_text(config: Any) -> str:
    """A `ModelConfig` message as `config.pbtxt` has it."""
    from google.protobuf import text_format

    return str(text_format.MessageToString(config))


def from_text(text: str) -> Any:
    """Parse `config.pbtxt` into a `ModelConfig` message.

    Raises:
        google.protobuf.text_format.ParseError: not a model configuration.
    """
    from google.protobuf import text_format

    return text_format.Parse(text, _pb().ModelConfig())


def _pb() -> Any:
    try:
        from tritonclient.grpc import model_config_pb2
    except ImportError as e:
        raise MissingExtraError(f"tritonclient does not import: {e}", extra="client") from e
    return model_config_pb2


def _tensors(message: Any, names: Iterable[str], sizes: Tensors, *, text: bool = False) -> None:
    for name in names:
        dtype, shape = tensor_shapes(sizes)[name]
        entry = message.add(name=name)
        if text and name == IMAGE:
            dtype, shape = "STRING", (1,)
        entry.data_type = _pb().DataType.Value(f"TYPE_{dtype}")
        entry.dims.extend(shape)


def _common(name: str, bundle: Bundle, options: Options) -> Any:
    config = _pb().ModelConfig(name=name, max_batch_size=max_batch_of(name, options.max_batch))
    config.version_policy.latest.num_versions = 1
    sizes = bundle.manifest.tensors
    text = name in (GIQA_BYTES, PREPROCESS_BYTES)
    _tensors(config.input, inputs_of(name), sizes, text=text)
    _tensors(config.output, outputs_of(name, sizes), sizes)
    _parameters(
        config,
        bundle_id=bundle.manifest.id,
        bundle_digest=bundle.digest,
        device=options.device,
        engine=options.engine,
    )
    return config


def _parameters(config: Any, **values: object) -> None:
    for key, value in values.items():
        config.parameters[key].string_value = str(value)


def _composing(name: str, bundle: Bundle, options: Options, image_bytes: int) -> Any:
    config = _common(name, bundle, options)
    first = name in PREPROCESSES
    if options.device == "gpu":
        instances = memory_of(bundle.manifest, options).instances[name]
    else:
        instances = instances_on_cpu(name, options)
    batching = config.dynamic_batching
    if first:
        # Only here: it makes queues slow (`instances_on_cpu`), and what is decoded finds room.
        queue = batching.default_queue_policy
        queue.timeout_action = _pb().ModelQueuePolicy.REJECT
        queue.default_timeout_microseconds = int(options.timeout_s * 1e6)
        queue.allow_timeout_override = True
        queue.max_queue_size = options.max_queue
    elif options.device == "gpu" and instances == 1:
        # A batch leaves a model one response at a time: let it come together again. (With
        # several instances Triton loses count of the idle ones: server issue 8870.)
        batching.max_queue_delay_microseconds = _DELAY_US
    else:
        batching.SetInParent()
    group = config.instance_group.add(count=instances)
    if options.device == "cpu":
        config.backend = "python"
        group.kind = _pb().ModelInstanceGroup.KIND_CPU
        slots = _DECODING_SLOTS if first else 1
        group.rate_limiter.resources.add(name=CPU_RESOURCE, count=slots)
        # `n` has 1/n of the chances: what is under way goes before what has not begun.
        group.rate_limiter.priority = {FUSION: 1}.get(name, 100 if first else 2)
        _parameters(
            config,
            bundle=options.bundle,
            precision=options.precision,
            threads=options.threads,
            max_bytes=options.limits.max_bytes,
            max_pixels=options.limits.max_pixels,
            max_frames=options.limits.max_frames,
        )
    else:
        config.backend = "dali" if first else "tensorrt"
        config.default_model_filename = "model.dali" if first else "model.plan"
        group.kind = _pb().ModelInstanceGroup.KIND_GPU
        if options.cuda_graphs and not first:
            add_cuda_graphs(config, bundle.manifest.tensors)
    if first and name != PREPROCESS_BYTES:
        config.input[0].allow_ragged_batch = True
    _warm_up(config, bundle, image_bytes)
    return config


def _warm_up(config: Any, bundle: Bundle, image_bytes: int) -> None:
    """The first request of a batch of one and of a full batch must not be a client's."""
    if config.name == PREPROCESS_BYTES:
        return
    for batch in sorted({1, config.max_batch_size}):
        entry = config.model_warmup.add(name=f"batch of {batch}", batch_size=batch)
        for tensor in config.input:
            data = entry.inputs[tensor.name]
            data.data_type = tensor.data_type
            if tensor.name == IMAGE:
                data.dims.append(image_bytes)
                data.input_data_file = bundle.self_test_image.name
            else:
                data.dims.extend(max(n, 1) for n in tensor.dims)
                data.zero_data = True


def _ensemble(name: str, bundle: Bundle, options: Options) -> Any:
    config = _common(name, bundle, options)
    config.platform = "ensemble"
    scheduling = config.ensemble_scheduling
    if options.server >= INFLIGHT_SINCE:
        scheduling.max_inflight_requests = _in_flight(options)
    steps = [] if name == GIQA_VIEWS else [_PREPROCESS_OF[name]]
    for model in (*steps, *GRAPHS):
        step = scheduling.step.add(model_name=model, model_version=-1)
        outputs = outputs_of(model, bundle.manifest.tensors)
        if model == FUSION:
            outputs = outputs_of(name, bundle.manifest.tensors)
        for tensor in inputs_of(model):
            step.input_map[tensor] = tensor
        for tensor in outputs:
            step.output_map[tensor] = tensor
    if name == GIQA and options.cache:
        config.response_cache.enable = True
    return config


def _python(name: str) -> str:
    kind = "PreprocessModel" if name in PREPROCESSES else "GraphModel"
    return (
        f'"""{name}: see giqa.triton.models."""\n\n'
        f"from giqa.triton.models import {kind} as TritonPythonModel\n\n"
        '__all__ = ["TritonPythonModel"]\n'
    )


def _dali(name: str, sizes: Tensors, options: Options) -> bytes:
    from giqa.pipeline import serialize_pipeline

    return serialize_pipeline(
        regions="grid" if name == PREPROCESS_PRECISE else "frame",
        global_side=sizes.global_side,
        local_side=sizes.local_side,
        batch=max_batch_of(name, options.max_batch),
        threads=options.threads or 4,
        device="gpu",
    )
