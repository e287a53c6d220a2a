"""Videos: frames by presentation time, their scores, and what they pool to."""

from giqa.video._compare import Comparison, Difference, Rendition, compare
from giqa.video._frame import Frame
from giqa.video._frames import FrameReader, read_frames
from giqa.video._info import StreamInfo, VideoLimits
from giqa.video._output import (
    VIDEO_FORMATS,
    SceneWriter,
    open_video_writer,
    timecode,
    write_srt,
    write_vmaf,
)
from giqa.video._pooling import POOLS, Scene, Window, pool, pool_scenes, worst_window
from giqa.video._result import FRAMES, VIDEO_SCHEMA, FrameRow, VideoResult, frame_schema
from giqa.video._sampling import Sampling
from giqa.video._score import VideoRun, score_video
from giqa.video._source import as_file
from giqa.video._stretches import Stretch, stretches
from giqa.video._timeline import Bookmark

__all__ = [
    "FRAMES",
    "POOLS",
    "VIDEO_FORMATS",
    "VIDEO_SCHEMA",
    "Bookmark",
    "Comparison",
    "Difference",
    "Frame",
    "FrameReader",
    "FrameRow",
    "Rendition",
    "Sampling",
    "Scene",
    "SceneWriter",
    "StreamInfo",
    "Stretch",
    "VideoLimits",
    "VideoResult",
    "VideoRun",
    "Window",
    "as_file",
    "compare",
    "frame_schema",
    "open_video_writer",
    "pool",
    "pool_scenes",
    "read_frames",
    "score_video",
    "stretches",
    "timecode",
    "worst_window",
    "write_srt",
    "write_vmaf",
]
