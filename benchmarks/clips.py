"""Videos to measure with, made here: a camera that moves over the sample photographs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from PIL import Image

from benchmarks.demo import Photo, photos

WIDTH, HEIGHT, RATE = 1280, 720, 25
"""720p at 25 frames a second."""


def write(path: Path, frames: int, gop: int, seed: int = 0) -> Path:
    """Encode H.264 as cameras and services do: B-frames, keyframes at fixed distances.

    Args:
        path: the file; its suffix chooses the container.
        frames: how many.
        gop: frames from one keyframe to the next.
        seed: of the grain.

    Returns:
        The file.
    """
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"preset": "veryfast", "g": str(gop), "sc_threshold": "0", "crf": "23"}
        for picture in _pan(frames, seed):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())
    return path


def decode(path: Path, *, keyframes: bool = False) -> int:
    """Decode a video with PyAV, and nothing else.

    Args:
        path: the file.
        keyframes: those alone; the decoder is not even given the others.

    Returns:
        How many frames were decoded.
    """
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        if not keyframes:
            return sum(1 for _ in container.decode(stream))
        packets = (p for p in container.demux(stream) if p.is_keyframe or p.dts is None)
        return sum(len(packet.decode()) for packet in packets)


def _pan(frames: int, seed: int) -> Iterator[Photo]:
    """Moves to and fro by two pixels a frame; grain, new in each, is what keeps encoders busy."""
    rng = np.random.default_rng(seed)
    far = 100
    shown = np.asarray(
        Image.fromarray(photos()["astronaut"]).resize((WIDTH + far, HEIGHT + far)), np.int16
    )
    grain = rng.normal(0, 3, (HEIGHT, WIDTH, 3)).astype(np.int16)
    for i in range(frames):
        at = abs(2 * i % (2 * far) - far)
        rolled = np.roll(grain, rng.integers(HEIGHT), axis=0)
        view = shown[at : at + HEIGHT, at : at + WIDTH] + rolled
        yield np.clip(view, 0, 255).astype(np.uint8)
