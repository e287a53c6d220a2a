"""The contract that every runtime shares: tensor names, the token grid, the score scale, profiles.

Sizes that differ between models (view sides, stages, D) come from a bundle's manifest; what is
fixed for all of them is written here, once.
"""

from __future__ import annotations

from typing import Final, Literal

IMAGE: Final = "IMAGE"
GLOBAL_VIEW: Final = "GLOBAL_VIEW"
LOCAL_VIEW: Final = "LOCAL_VIEW"
GLOBAL_TOKENS: Final = "GLOBAL_TOKENS"
LOCAL_TOKENS: Final = "LOCAL_TOKENS"
SCORE: Final = "SCORE"
QUALITY_MAP: Final = "QUALITY_MAP"

GLOBAL_BRANCH: Final = "global_branch"
LOCAL_BRANCH: Final = "local_branch"
FUSION: Final = "fusion"
GRAPHS: Final = (GLOBAL_BRANCH, LOCAL_BRANCH, FUSION)

PREPROCESS: Final = "preprocess"
PREPROCESS_PRECISE: Final = "preprocess_precise"
PREPROCESS_ISOLATED: Final = "preprocess_isolated"
PREPROCESS_BYTES: Final = "preprocess_bytes"
PREPROCESSES: Final = (PREPROCESS, PREPROCESS_PRECISE, PREPROCESS_ISOLATED, PREPROCESS_BYTES)

GIQA: Final = "giqa"
GIQA_MAP: Final = "giqa_map"
GIQA_PRECISE: Final = "giqa_precise"
GIQA_VIEWS: Final = "giqa_views"
GIQA_ISOLATED: Final = "giqa_isolated"
GIQA_BYTES: Final = "giqa_bytes"
ENSEMBLES: Final = (GIQA, GIQA_MAP, GIQA_PRECISE, GIQA_VIEWS, GIQA_ISOLATED, GIQA_BYTES)
"""Models of the Triton repository, beside GRAPHS. The last of each are for the CPU only."""

GRID: Final = 14
"""Cells per side of the token grid; there are GRID * GRID tokens a view."""

SCORE_MIN: Final = 0.0
SCORE_MAX: Final = 100.0

Band = Literal["bad", "poor", "fair", "good", "excellent"]
BANDS: Final[tuple[tuple[float, Band], ...]] = (
    (20.0, "bad"),
    (40.0, "poor"),
    (60.0, "fair"),
    (80.0, "good"),
    (SCORE_MAX, "excellent"),
)
"""Upper edges (exclusive but for the last) of the five ACR categories (ITU-T P.910) on 0..100."""

Profile = Literal["fast", "precise"]
PROFILES: Final[tuple[Profile, ...]] = ("fast", "precise")
MAX_VIEWS: Final = 9
"""Most views an image is cut into (`precise`: a grid of at most 3x3)."""

TILES: Final = 4
"""Tiles of native pixels that a picture has which is large for profile `fast` (a grid of 2x2)."""


def band(score: float) -> Band:
    """Name the ACR category of a score.

    Args:
        score: a score in 0..100.

    Returns:
        `bad`, `poor`, `fair`, `good` or `excellent`.

    Example:
        >>> band(59.9), band(60.0)
        ('fair', 'good')
    """
    return next((name for edge, name in BANDS if score < edge), BANDS[-1][1])
