"""Reports for people: one HTML file each, with nothing to fetch, and quality maps as files.

`ImageReport` gathers the rows of an image set, `VideoReport` the results of videos.
Pages need the extra `report`; `MapFolder` does not.
"""

from giqa.report._comparison import write_comparison
from giqa.report._images import ImageReport
from giqa.report._maps import MapFolder
from giqa.report._page import check
from giqa.report._spread import Spread
from giqa.report._video import VideoReport, WorstFrames

__all__ = [
    "ImageReport",
    "MapFolder",
    "Spread",
    "VideoReport",
    "WorstFrames",
    "check",
    "write_comparison",
]
