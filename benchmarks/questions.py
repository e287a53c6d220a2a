"""What a reader asks first: one picture and one paragraph each, written from the records.

A sentence stands there only if every number in it was measured.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.record import RESULTS, Record, Series, number

QUESTIONS: Mapping[str, tuple[str, Sequence[str]]] = {
    "engine": (
        "How fast is it against the same model elsewhere?",
        (
            "Photographs of 512x512, JPEG bytes to score.",
            "One at a time, in int8: {giqa int8/throughput} images/s; ONNX Runtime in int8 "
            "{ONNX Runtime int8/throughput}.",
            "In bfloat16: {giqa bf16/throughput}, PyTorch {PyTorch eager bf16/throughput}, "
            "compiled {torch.compile bf16/throughput}.",
            "In float32: {giqa f32/throughput}, PyTorch {PyTorch eager f32/throughput}, compiled "
            "{torch.compile f32/throughput}, ONNX Runtime {ONNX Runtime f32/throughput}.",
            "In batches of 8: int8 {giqa int8, batch 8/throughput}, float32 "
            "{giqa f32, batch 8/throughput}, PyTorch in float32 "
            "{PyTorch eager f32, batch 8/throughput}.",
            "A fresh process has its first score after {giqa score, cold process/wall time} s.",
        ),
    ),
    "peers": (
        "How fast is it against what I use?",
        (
            "giqa {giqa/throughput} images/s of mixed sizes as a stream, "
            "{giqa, one at a time/throughput} one at a time; TOPIQ {topiq_nr/throughput}, MUSIQ "
            "{musiq/throughput}, HyperIQA {hyperiqa/throughput}, MANIQA {maniqa/throughput}, "
            "CNNIQA {cnniqa/throughput}, DBCNN {dbcnn/throughput} (random weights: speed only), "
            "BRISQUE {brisque/throughput}, PIQE {pypiqe/throughput}.",
            "All at 448 pixels a side: giqa {giqa, 448 px/throughput}, TOPIQ "
            "{topiq_nr, 448 px/throughput}, MUSIQ {musiq, 448 px/throughput}, CNNIQA "
            "{cnniqa, 448 px/throughput}.",
            "Of the three that come with weights, SROCC with people on images that nothing was "
            "chosen on: giqa {giqa/SROCC:split=test}, BRISQUE "
            "{brisque/SROCC:split=test}, PIQE {pypiqe/SROCC:split=test}.",
        ),
    ),
    "triton": (
        "What does a server cost?",
        (
            "A Triton server on the same cores, its client among them: "
            "{in_flight 32/throughput} images/s with 32 in flight, {in process/throughput} in "
            "process.",
            "One at a time: {in_flight 1, one at a time/latency p50} ms, "
            "{in process, one at a time/latency p50} in process.",
            "At {perf_analyzer, rate 50% of capacity/throughput:arrivals=poisson} a second, half "
            "of what it can do, arriving at random: "
            "{perf_analyzer, rate 50% of capacity/latency p50} ms in the median.",
            "It takes {server/memory} MB.",
            "Asked for 1.5 times what it can do, {overload/goodput} % of that still comes back "
            "as scores.",
        ),
    ),
    "scale": (
        "How does it grow?",
        (
            "An image more takes {images, line/slope} ms.",
            "An image of 512x512 takes {512x512/time} ms, one of 1024x1024, whose native pixels "
            "are looked at in tiles, {1024x1024/time}, one of 4096x4096 {4096x4096/time}; the rest "
            "of what grows is decoding.",
            "Memory grows by {memory/growth} MB in 1,000 images.",
        ),
    ),
    "limit": (
        "Where is the limit?",
        (
            "An image is {JPEG to score/operations} GFLOP.",
            "Of the peak that the best of several libraries reaches on these cores, giqa uses "
            "{JPEG to score int8/efficiency} % in int8, {JPEG to score bf16/efficiency} % in "
            "bfloat16, {JPEG to score f32/efficiency} % in float32.",
            "The ViT reaches {global_branch int8/efficiency} % in int8, the CNN, whose products "
            "are small, {local_branch int8/efficiency} %.",
        ),
    ),
}
"""A question and the sentences that answer it, by suite. `{subject/metric}` is that series'
median; `{...:key=value}` only where that is among its facts."""

_VALUE = re.compile(r"\{([^{}:]+)(?::(\w+)=(\w+))?\}")


def answers(found: Sequence[Record], pictures: Path = RESULTS) -> Iterator[str]:
    """Answer what the records can answer.

    Args:
        found: the records.
        pictures: folder of the plots, below the README's.

    Yields:
        A Markdown section a question, in the order of `QUESTIONS`.
    """
    by_suite = {one.suite: one for one in found}
    for suite, (question, sentences) in QUESTIONS.items():
        if (record := by_suite.get(suite)) is None:
            continue
        series = {one.name: one for one in record.series}
        text = " ".join(s for s in (_filled(one, series) for one in sentences) if s)
        picture = f"![{suite}]({pictures.name}/{suite}.svg)"
        machine = f"`{record.bundle}`, {record.machine['cpus']} cores, {record.date[:10]}."
        yield f"### {question}\n\n{text} {machine} [All of it](#{suite}).\n\n{picture}"


def _filled(sentence: str, series: Mapping[str, Series]) -> str:
    def value(match: re.Match[str]) -> str:
        one = series[match[1]]
        if match[2] and one.facts.get(match[2]) != match[3]:
            raise KeyError(match[2])
        return number(one.median)

    try:
        return _VALUE.sub(value, sentence)
    except KeyError:  # was not measured
        return ""
