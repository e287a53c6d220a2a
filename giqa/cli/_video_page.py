"""`giqa video --report`: results of `giqa.video` as `giqa.report` describes them."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryFile

from giqa.report import FrameScore, Span, VideoReport, WorstFrames, write_video_report
from giqa.report import check as check_report
from giqa.video import StreamInfo, VideoResult


class VideoPage:
    """Gathers results and writes one page about all of them.

    Args:
        path: the HTML file.

    Raises:
        MissingExtraError: jinja2 is not installed.
        OSError: nothing can be written there.
    """

    def __init__(self, path: Path) -> None:
        # Said now and not after the work.
        check_report()
        TemporaryFile(dir=path.parent).close()
        self._path = path
        self._videos: list[VideoReport] = []

    @staticmethod
    def watch() -> WorstFrames:
        """What looks at the frames of one video while it is scored, see `add`."""
        return WorstFrames()

    def add(self, result: VideoResult, worst: WorstFrames) -> None:
        """Take in a video and the frames that were kept while it was scored."""
        window = result.worst_window
        facts = {} if result.info is None else _facts(result.info)
        if result.notes:
            facts["notes"] = ", ".join(result.notes).replace("_", " ")
        self._videos.append(
            VideoReport(
                result.path,
                result.bundle,
                result.engine,
                facts=facts,
                frames=[FrameScore(row.frame, row.pts_s, row.score) for row in result.frames],
                pooled=result.pooled or {},
                scenes=[Span(s.start_s, s.end_s, s.pooled.get("mean")) for s in result.scenes],
                worst_window=None
                if window is None
                else Span(window.start_s, window.end_s, window.score),
                worst=worst.frames,
                error=result.error,
            )
        )

    def close(self) -> None:
        """Write the file.

        Raises:
            StorageFullError: no space is left; the old file, if any, is untouched.
            OSError: the file cannot be written.
        """
        write_video_report(self._path, self._videos)


def _facts(info: StreamInfo) -> dict[str, str]:
    return {
        "container": info.container,
        "codec": info.codec,
        "size": f"{info.width} x {info.height}",
        "frames_a_second": "-" if info.fps is None else f"{info.fps:.3f}".rstrip("0").rstrip("."),
        "duration": "-" if info.duration_s is None else f"{info.duration_s:.2f} s",
        "pixel_format": info.pixel_format,
        "transfer": info.transfer,
        "rotation": f"{info.rotation} degrees",
    }
