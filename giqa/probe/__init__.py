"""What a file says of itself: format, size, frames and colour facts, from the header alone.

Nothing is decoded. What cannot be an image, is cut short or exceeds a limit is refused here, with
a code, before a decoder sees it.
"""

from giqa.probe._probe import Limits, Probe, probe

__all__ = ["Limits", "Probe", "probe"]
