"""preprocess_bytes: see giqa.serving."""

from giqa.serving import PreprocessModel as TritonPythonModel

__all__ = ["TritonPythonModel"]
