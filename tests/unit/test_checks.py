"""Arguments are looked at where they enter: a wrong one is a `UsageError` that names it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from giqa import (
    AsyncTritonScorer,
    Connection,
    Limits,
    LocalScorer,
    PlanInvalidError,
    Retry,
    Sampling,
    TritonScorer,
    UnwritableError,
    UsageError,
    VideoLimits,
    VideoRun,
    load_bundle,
    score,
    to_arrow,
    to_pandas,
)
from giqa.batch import Results, Runtime, Scoring, Sources, resume, run
from giqa.report import ImageReport, MapFolder, VideoReport, WorstFrames, write_comparison
from giqa.results import open_writer
from giqa.tensors import check_views
from giqa.video import compare, open_video_writer, read_frames
from tests.brightness import Brightness

URL = "grpc://127.0.0.1:9"
COMPLETE = Connection(host="127.0.0.1", port=9)
NO_NUMBERS = (0, -1, 1.5, "8", None, True, math.nan)

WRONG: dict[str, Callable[[], object]] = {
    **{f"batch {x!r}": lambda x=x: LocalScorer(batch=x) for x in NO_NUMBERS},
    **{f"threads {x!r}": lambda x=x: LocalScorer(threads=x) for x in NO_NUMBERS if x is not None},
    **{
        f"precision {x!r}": lambda x=x: LocalScorer(precision=x)
        for x in ("fp32", "f16", "", None, 32, ["f32"])
    },
    "limits": lambda: LocalScorer(limits={"max_bytes": 3}),  # type: ignore[arg-type]
    "bundle": lambda: LocalScorer(5),  # type: ignore[arg-type]
    "load_bundle": lambda: load_bundle(b"giqa-s"),  # type: ignore[arg-type]
    **{f"profile {x!r}": lambda x=x: score([], profile=x) for x in ("quick", "", None, 1)},
    **{
        f"{name} {x!r}": lambda name=name, x=x: Limits(**{name: x})
        for name in ("max_bytes", "max_pixels", "max_frames")
        for x in NO_NUMBERS
    },
    **{f"video {x!r}": lambda x=x: VideoLimits(max_pixels=x) for x in NO_NUMBERS},
    **{
        f"{kind.__name__} {name} {x!r}": lambda kind=kind, name=name, x=x: kind(URL, **{name: x})
        for kind in (TritonScorer, AsyncTritonScorer)
        for name, values in {
            "in_flight": NO_NUMBERS,
            "batch": NO_NUMBERS,
            "deadline_s": (0, -1, math.nan, math.inf, "3", None),
            "transport": ("streaming", "", None),
            "limits": (3,),
            "retry": (3, "often"),
            "shared_memory": ("yes", None),
            "host": ("other",),
            "token": (b"x", "", "two\nlines", "ä"),
            "ca": (3, b"x"),
            "cert": ("alone.pem",),
            "tokn": ("x",),
            "keepalive_s": (0, math.nan),
        }.items()
        for x in values
    },
    "connection and token": lambda: TritonScorer(COMPLETE, token="x"),
    "connection and ca": lambda: AsyncTritonScorer(COMPLETE, ca=Path("x")),
    "url": lambda: TritonScorer(3),  # type: ignore[arg-type]
    "port": lambda: Connection(host="x", port=0),
    "host": lambda: Connection(host=None),  # type: ignore[arg-type]
    "tls": lambda: Connection(host="x", tls="yes"),  # type: ignore[arg-type]
    "keepalive": lambda: Connection(host="x", keepalive_s=-1),
    **{
        f"retry {name} {x!r}": lambda name=name, x=x: Retry(**{name: x})
        for name, x in (("attempts", 0), ("base_s", -1), ("max_s", math.nan), ("base_s", "x"))
    },
    **{
        f"sampling {name} {x!r}": lambda name=name, x=x: Sampling(**{name: x})
        for name, values in {
            "fps": (-1, 0, math.nan, math.inf, "2", True),
            "every": (0, -1, 2.5, "2"),
            "start_s": (-1, math.nan, "2"),
            "end_s": (0, math.nan, "2"),
        }.items()
        for x in values
    },
    **{
        f"window {x!r}": lambda x=x: VideoRun("x.mp4", None, window_s=x)  # type: ignore[arg-type]
        for x in (0, math.nan, "1")
    },
    "rate": lambda: VideoRun("x.mp4", None, rate=-1),  # type: ignore[arg-type]
    "scoring": lambda: Scoring(profile="quick"),
    "scoring, unknown": lambda: Scoring(profil="fast"),
    **{
        f"scoring {name} {x!r}": lambda name=name, x=x: Scoring(**{name: x})
        for name, values in {
            "fps": (-1, 0, math.nan, math.inf),
            "every": (0, -1),
            "start_s": (-1, math.nan, math.inf),
            "end_s": (0, -2, math.nan),
            "window_s": (0, math.nan),
        }.items()
        for x in values
    },
    "scoring, two ways": lambda: Scoring(fps=2, keyframes=True),
    "runtime, deadline": lambda: Runtime(deadline_s=math.inf),
    "runtime": lambda: Runtime(batch=0),
    "sources": lambda: Sources(inputs=3),
    **{
        f"{name} {x!r}": lambda taker=taker, x=x: taker(x)
        for name, taker in {
            "maps": MapFolder,
            "report": lambda path: ImageReport(path, bundle="b", engine="e"),
            "report of videos": VideoReport,
            "run": lambda path: run(["a.jpg"], path),
            "resume": resume,
            "results": Results,
            "frames": read_frames,
        }.items()
        for x in (3, None, b"x", "", "a\0b", ["x"])
    },
    **{
        f"{name} {x!r}": lambda taker=taker, x=x: taker(x)
        for name, taker in {
            "scorer": lambda scorer: score([], scorer),
            "scorer of a video": lambda scorer: VideoRun("x.mp4", scorer),
            "sampling": lambda sampling: read_frames("x.mp4", sampling),
            "limits of frames": lambda limits: read_frames("x.mp4", limits=limits),
            "sampling of a video": lambda x: VideoRun("x.mp4", Brightness(), sampling=x),
            "rows": lambda kind: open_writer("x", kind),
            "rows of videos": lambda kind: open_video_writer(
                "x", kind, bundle="b", engine="e"
            ).__enter__(),
            "arrow": to_arrow,
            "pandas": lambda results: to_pandas([results]),
            "videos": compare,
            "video": lambda video: compare([video, video]),
            "page": lambda comparison: write_comparison("x.html", comparison),
            "row": lambda row: ImageReport("x.html", bundle="b", engine="e").write(row),
            "worst": WorstFrames,
            "inputs": lambda inputs: run(inputs, "run"),
        }.items()
        for x in (3, "x", ...)
        if (name, x) not in (("worst", 3), ("inputs", "x"))
    },
    "views": lambda: check_views(np.zeros(3), load_bundle().manifest),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("make", WRONG.values(), ids=WRONG)
def test_what_makes_no_sense_is_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(UsageError) as caught:
        make()
    assert caught.value.item
    assert caught.value.code == "usage"


def test_what_makes_sense_is_taken() -> None:
    assert Limits(max_bytes=np.int64(5)).max_bytes == 5  # type: ignore[arg-type]
    assert Sampling(end_s=math.inf).end_s == math.inf
    assert Sampling(fps=np.float32(2)).fps == 2
    assert Connection.of(COMPLETE, token=None) is COMPLETE
    assert VideoLimits(max_bytes=None).max_bytes is None


def test_one_path_is_one_input_and_a_run_needs_a_folder(tmp_path: Path) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    for name, inputs in (("text", str(tmp_path / "a.png")), ("path", tmp_path / "a.png")):
        assert run(inputs, tmp_path / name, scorer=Brightness()).rows == 1
    assert run([tmp_path / "a.png"] * 2, tmp_path / "list", scorer=Brightness()).rows == 2
    with pytest.raises(UnwritableError, match=r"a\.png"):
        run(["x"], tmp_path / "a.png", scorer=Brightness())
    with pytest.raises(PlanInvalidError, match=r"a\.png"):
        resume(tmp_path / "a.png", scorer=Brightness())
