"""Serving with Triton: clients, the server process, model repositories."""

from giqa.triton.aio import AsyncTritonScorer
from giqa.triton.client import TritonScorer
from giqa.triton.connection import Connection
from giqa.triton.flow import Retry

__all__ = ["AsyncTritonScorer", "Connection", "Retry", "TritonScorer"]
