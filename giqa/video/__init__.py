"""Videos: frames by presentation time, their scores, and what they pool to."""

from giqa.video.frames import Frame, FrameReader, read_frames
from giqa.video.output import open_video_writer, write_srt
from giqa.video.pooling import POOLS, Scene, Window, pool, pool_scenes, worst_window
from giqa.video.result import FRAMES, FrameRow, VideoResult, frame_schema
from giqa.video.sampling import Sampling
from giqa.video.score import VideoRun, score_video
from giqa.video.stream import StreamInfo, VideoLimits

__all__ = [
    "FRAMES",
    "POOLS",
    "Frame",
    "FrameReader",
    "FrameRow",
    "Sampling",
    "Scene",
    "StreamInfo",
    "VideoLimits",
    "VideoResult",
    "VideoRun",
    "Window",
    "frame_schema",
    "open_video_writer",
    "pool",
    "pool_scenes",
    "read_frames",
    "score_video",
    "worst_window",
    "write_srt",
]
