"""A full-reference measure: how much a damaged picture has lost, calibrated on published opinions.

Example:
    >>> import numpy as np
    >>> from training.fidelity import lost
    >>> picture = np.full((48, 64, 3), 128, np.uint8)
    >>> lost(picture, picture)
    0.0
"""

from training.fidelity.measure import lost

__all__ = ["lost"]
