"""The GIQA model: presets, branches, fusion."""

from training.model.giqa import Giqa, create
from training.model.presets import PRESETS, GlobalSpec, LocalSpec, Preset

__all__ = ["PRESETS", "Giqa", "GlobalSpec", "LocalSpec", "Preset", "create"]
