"""Scoring on a server, synchronously or with asyncio."""

from giqa.client._asyncio import AsyncTritonScorer
from giqa.client._retry import Retry
from giqa.client._sync import TritonScorer
from giqa.kserve import Connection

__all__ = ["AsyncTritonScorer", "Connection", "Retry", "TritonScorer"]
