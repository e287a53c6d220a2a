"""local_branch: see giqa.triton.models."""

from giqa.triton.models import GraphModel as TritonPythonModel

__all__ = ["TritonPythonModel"]
