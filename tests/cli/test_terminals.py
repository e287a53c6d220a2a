"""What stands on a terminal, by its width: tables keep within it."""

from __future__ import annotations

from pathlib import Path

import pytest

from giqa.cli._common import columns, fitted
from tests.clips import pan, write
from tests.makers import jpeg
from tests.terminal import on_terminal


def test_scores_at_60_columns(tmp_path: Path) -> None:
    (tmp_path / "a-rather-long-folder").mkdir()
    names = ["a-rather-long-folder/short.jpg", "照片" * 20 + ".jpg", "gone-" + "x" * 60 + ".jpg"]
    for name in names[:2]:
        (tmp_path / name).write_bytes(jpeg(160, 120))
    lines = on_terminal(60, "score", *(tmp_path / name for name in names))
    assert max(map(columns, lines)) <= 60
    assert [line.split()[-1] for line in lines if "160x120" in line or "not_found" in line] == [
        "160x120",
        "160x120",
        "not_found",
    ]
    for name, line in zip(names, lines, strict=True):
        assert line.startswith("...")
        assert line.split()[0].endswith(name[-12:])


@pytest.mark.parametrize("width", [60, 140])
def test_videos_name_their_values_where_columns_do_not_fit(tmp_path: Path, width: int) -> None:
    clip = write(tmp_path / f"{'long-' * 12}clip.mp4", pan(4))
    lines = on_terminal(width, "video", "--every", 2, clip, tmp_path / "none.mp4")
    assert max(map(columns, lines)) <= width
    text = "\n".join(lines)
    for head in ("harmonic_mean", "worst window", "frames", "not_found"):
        assert head in text
    assert text.count("harmonic_mean") == (2 if width == 60 else 1)


@pytest.mark.parametrize(("across", "width"), [("60", 27), ("20", 12), ("200", 44)])
@pytest.mark.parametrize("name", ["a.jpg", "x" * 300, "照片" * 99, "e\u0301" * 80, "a/" * 4000])
def test_names_fill_their_column(
    monkeypatch: pytest.MonkeyPatch, across: str, width: int, name: str
) -> None:
    monkeypatch.setenv("COLUMNS", across)
    found = fitted(name, 33)
    assert width - 1 <= columns(found) <= width
    assert found.rstrip()[-3:] == name[-3:]
