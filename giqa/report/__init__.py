"""Reports for people: one HTML file each, with nothing to fetch, and quality maps as files.

`ImageReport` gathers the rows of an image set, `VideoReport` describes what was found in a video.
Pages need the extra `report`; `MapFolder` does not.
"""

from giqa.report._images import ImageReport
from giqa.report._maps import MapFolder
from giqa.report._page import check
from giqa.report._video import (
    FrameScore,
    Span,
    VideoReport,
    WorstFrame,
    WorstFrames,
    write_video_report,
)

__all__ = [
    "FrameScore",
    "ImageReport",
    "MapFolder",
    "Span",
    "VideoReport",
    "WorstFrame",
    "WorstFrames",
    "check",
    "write_video_report",
]
