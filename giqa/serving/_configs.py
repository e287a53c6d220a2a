"""Configurations of the models and ensembles of a repository, as Triton's messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any

from giqa.bundle import Bundle
from giqa.contract import (
    FUSION,
    GIQA,
    GIQA_BYTES,
    GIQA_VIEWS,
    GRAPHS,
    IMAGE,
    PREPROCESS_BYTES,
    PREPROCESSES,
)
from giqa.extras import importing
from giqa.manifest import Tensors
from giqa.serving._gpu import add_cuda_graphs, batch_on_gpu
from giqa.serving._repository_options import (
    CPU_RESOURCE,
    INFLIGHT_SINCE,
    PREPROCESS_OF,
    RepositoryOptions,
    in_flight_of,
    instances_on_cpu,
    memory_of,
    road_of,
)
from giqa.tensors import (
    engine_tensors,
    inputs_of,
    max_batch_of,
    outputs_of,
    shapes_of_one_view,
    tensor_shapes,
)

_DELAY_US = 100
_DECODING_SLOTS = 2


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
    with importing("tritonclient", "client"):
        from tritonclient.grpc import model_config_pb2
    return model_config_pb2


def _tensors(message: Any, names: Iterable[str], sizes: Tensors, *, text: bool = False) -> None:
    for name in names:
        dtype, shape = tensor_shapes(sizes)[name]
        entry = message.add(name=name)
        if text and name == IMAGE:
            dtype, shape = "STRING", (1,)
        entry.data_type = _pb().DataType.Value(f"TYPE_{dtype}")
        entry.dims.extend(shape)


def _common(name: str, bundle: Bundle, options: RepositoryOptions) -> Any:
    gpu = options.device == "gpu"
    batch = (batch_on_gpu if gpu else max_batch_of)(name, options.max_batch)
    config = _pb().ModelConfig(name=name, max_batch_size=batch)
    config.version_policy.latest.num_versions = 1
    sizes = bundle.manifest.tensors
    sizes = engine_tensors(sizes, options.precision) if gpu else sizes
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


def composing_config(
    name: str, bundle: Bundle, options: RepositoryOptions, images: Mapping[str, bytes]
) -> Any:
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
        # Triton looks at a request's time when its turn comes: prompt is the client's own deadline.
        queue.default_timeout_microseconds = int(options.timeout_s * 1e6)
        queue.allow_timeout_override = True
        queue.max_queue_size = options.max_queue
    elif options.device == "gpu" and instances == 1:
        # A batch leaves a model one response at a time: let it come together again. (With
        # several instances Triton loses count of the idle ones: server issue 8870. On a CPU it made
        # no difference.)
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
        group.kind = _pb().ModelInstanceGroup.KIND_GPU  # so many on each GPU
        if first:
            # As in the serialized pipeline; here one can change it.
            _parameters(config, num_threads=road_of(name, options).threads)
        else:
            group.profile.extend(str(i) for i in range(options.profiles))
            if options.cuda_graphs:
                add_cuda_graphs(config, bundle.manifest)
    if first and name != PREPROCESS_BYTES:
        config.input[0].allow_ragged_batch = True
    _warm_up(config, bundle, images)
    return config


def _warm_up(config: Any, bundle: Bundle, images: Mapping[str, bytes]) -> None:
    """The first request of a batch of one and of a full batch must not be a client's."""
    if config.name == PREPROCESS_BYTES:
        return
    kinds: list[Mapping[str, str | tuple[int, ...]]]
    if config.name in PREPROCESSES:
        kinds = [{IMAGE: name} for name in images]
    else:
        kinds = [*shapes_of_one_view(config.name, bundle.manifest)]
    for kind, batch in product(range(len(kinds)), sorted({1, config.max_batch_size})):
        name = f"batch of {batch}{' with tiles' if kind else ''}"
        entry = config.model_warmup.add(name=name, batch_size=batch)
        for tensor in config.input:
            data = entry.inputs[tensor.name]
            data.data_type = tensor.data_type
            given = kinds[kind][tensor.name]
            if isinstance(given, str):
                data.dims.append(len(images[given]))
                data.input_data_file = given
            else:
                data.dims.extend(given)
                data.zero_data = True


def ensemble_config(name: str, bundle: Bundle, options: RepositoryOptions) -> Any:
    config = _common(name, bundle, options)
    config.platform = "ensemble"
    scheduling = config.ensemble_scheduling
    if options.server >= INFLIGHT_SINCE and name != GIQA_VIEWS:
        # Those of `giqa_views` would wait in the thread that takes in everybody's.
        scheduling.max_inflight_requests = in_flight_of(name, options)
    # Without a step of preprocessing there is no limit on the queue and no timeout: what floods
    # `giqa_views` is bounded by its clients alone, and what they gave up is computed all the same.
    steps = [] if name == GIQA_VIEWS else [PREPROCESS_OF[name]]
    for model in (*steps, *GRAPHS):
        step = scheduling.step.add(model_name=model, model_version=-1)
        outputs = outputs_of(model, bundle.manifest.tensors)
        if model == FUSION:
            outputs = outputs_of(name, bundle.manifest.tensors)
        for tensor in inputs_of(model):
            step.input_map[tensor] = tensor
        for tensor in outputs:
            step.output_map[tensor] = tensor
    # The cache's key ignores shapes and wanted outputs: only batches of one with one output.
    if name == GIQA and options.cache:
        config.response_cache.enable = True
    return config
