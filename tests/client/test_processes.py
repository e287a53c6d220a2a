"""Scorers in children, and those that were pickled."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from giqa.client import TritonScorer
from giqa.types import Limits
from tests.fakes.clients import QUICK
from tests.fakes.kserve import FakeServer
from tests.fakes.scripts import score_of
from tests.makers import jpeg

FORKING = """
import collections, os, sys
from giqa import UsageError
from giqa.client import TritonScorer

ended = collections.Counter()
with TritonScorer(sys.argv[1]) as scorer:
    for _ in range(60):
        (before,) = scorer.score([sys.argv[2]])
        child = os.fork()
        if not child:
            try:
                list(scorer.score([sys.argv[2]]))
            except UsageError as e:
                scorer.close()
                os._exit(0 if "was opened before this process was forked" in str(e) else 2)
            finally:
                os._exit(1)
        ended[os.waitpid(child, 0)[1]] += 1
        (after,) = scorer.score([sys.argv[2]])
        assert after.score == before.score
print(dict(ended))
"""


def test_forked_children_are_told_at_once(
    server: FakeServer, images: list[bytes], tmp_path: Path
) -> None:
    """In a process of its own, as the server's threads here are gRPC's too."""
    picture = tmp_path / "one.jpg"
    picture.write_bytes(images[0])
    env = {k: v for k, v in os.environ.items() if k != "GRPC_ENABLE_FORK_SUPPORT"}
    ran = subprocess.run(
        [sys.executable, "-c", FORKING, server.url, str(picture)],
        capture_output=True,
        text=True,
        timeout=120,
        env=env,
    )
    assert ran.stdout.strip() == "{0: 60}", ran.stderr


def test_a_scorer_can_be_pickled(server: FakeServer, images: list[bytes]) -> None:
    with (
        TritonScorer(server.url, batch=2, retry=QUICK, limits=Limits(max_pixels=5000)) as scorer,
        pickle.loads(pickle.dumps(scorer)) as again,
    ):
        for one in (scorer, again):
            found = [r.score for r in one.score(images[:3])]
            assert found == pytest.approx([score_of(i) for i in images[:3]])
            (large,) = one.score(jpeg(100, 100))
            assert large.error.code == "too_many_pixels"
