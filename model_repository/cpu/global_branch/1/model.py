"""global_branch: see giqa.serving."""

from giqa.serving import GraphModel as TritonPythonModel

__all__ = ["TritonPythonModel"]
