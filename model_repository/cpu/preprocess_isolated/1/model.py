"""preprocess_isolated: see giqa.triton.models."""

from giqa.triton.models import PreprocessModel as TritonPythonModel

__all__ = ["TritonPythonModel"]
