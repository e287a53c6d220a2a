"""Forked children of a process that scored: each case in processes of its own, killed if it hangs.

What a child frees of its parent's must cost nothing, and what it goes on with must say what to do.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from giqa.bundle import load_bundle
from tests.clips import pan, write
from tests.fakes.kserve import FakeServer
from tests.makers import jpeg

PARENT = """
import gc, os, signal, sys
from pathlib import Path
from giqa import LocalScorer, UsageError
from giqa.bundle import load_bundle
from giqa.types import Item

what, then, picture, clip, url = sys.argv[1:]
data = Path(picture).read_bytes()
gc.disable()

def scorer():  # single pictures and even batches have requests of their own
    made = LocalScorer(precision="f32", batch=4)
    found = made.score([data] * 5)
    next(found)
    return made, found, made

def lazy():
    made = LocalScorer(precision="f32")
    return made, made.score([data]), made

def views():
    from giqa.decode import Decoder
    made = LocalScorer(precision="f32", batch=1)
    view = Decoder(made.manifest, threads=2)([Item.of(data)], "fast")[0].views
    found = made.score_views(iter([view] * 3))
    next(found)
    return made, found, made

def decoder():
    from giqa.decode import Decoder
    made = Decoder(load_bundle().manifest, batch=2, threads=2)
    made([Item.of(data)] * 3, "fast")
    def again():
        yield made([Item.of(data)], "fast")
    return made, again(), None

def graphs():
    import numpy as np
    from giqa.openvino import CompiledGraphs
    bundle = load_bundle()
    made, sizes = CompiledGraphs(bundle, "f32", 2), bundle.manifest.tensors
    def call():
        sides = sizes.global_side, sizes.local_side
        return made(*(np.zeros((2, 1, side, side, 3), np.uint8) for side in sides))
    call()
    def again():
        yield call()
    return made, again(), None

def anew():
    made = LocalScorer(precision="f32")
    list(made.score(data))
    def again():
        yield LocalScorer(precision="f32")
    return made, again(), made

def frames():
    from giqa.video import read_frames
    made = read_frames(clip)
    next(made)
    return made, made, made

def ahead():
    from giqa.ahead import ahead
    from giqa.video import read_frames
    made = ahead(read_frames(clip), 4)
    next(made)
    return made, made, made

def mapped():
    from giqa.ahead import mapped
    made = mapped(str, iter(range(9)), workers=2, here=lambda one: False)
    next(made)
    return made, made, made

def remote():
    from giqa.client import TritonScorer
    made = TritonScorer(url)
    found = made.score([data] * 40)
    next(found)
    return made, found, made

def remote_lazy():
    from giqa.client import TritonScorer
    made = TritonScorer(url)
    return made, made.score([data] * 2), made

def remote_anew():
    from giqa.client import TritonScorer
    made = TritonScorer(url)
    list(made.score(data))
    def again():
        yield list(TritonScorer(url).score(data))
    return made, again(), made

made, found, closing = globals()[what]()
if then == "free":  # garbage in circles: whenever the collector runs
    left = [made, found, closing]
    left.append(left)
    del made, found, closing, left
child = os.fork()
if not child:
    signal.alarm(60)
    if then == "free":
        gc.collect()
        os._exit(0)
    try:
        list(found)
    except UsageError as e:
        said = "before this process was forked" in str(e) and bool(e.remedy)
        if closing is not None:
            closing.close()
        os._exit(0 if said else 3)
    os._exit(4)
print(os.waitpid(child, 0)[1])
gc.collect()
if then != "free":
    list(found)  # the parent goes on
    if closing is not None:
        closing.close()
"""

KINDS = ["scorer", "lazy", "views", "decoder", "graphs", "anew"]
KINDS += ["frames", "ahead", "mapped", "remote", "remote_lazy", "remote_anew"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("forked") / "a.mp4", pan(40, 320, 180))


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    with FakeServer(bundle=load_bundle()) as made:
        yield made


@pytest.mark.parametrize("then", ["free", "go on"])
@pytest.mark.parametrize("what", KINDS)
def test_a_child_frees_or_is_told(
    what: str, then: str, clip: Path, tmp_path: Path, server: FakeServer
) -> None:
    picture = tmp_path / "a.jpg"
    picture.write_bytes(jpeg(300, 200))
    command = [sys.executable, "-W", "ignore", "-c", PARENT, what, then]
    done = subprocess.run(
        [*command, str(picture), str(clip), server.url],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("0\n", "", 0)


def test_children_of_a_parent_that_only_imported_score(tmp_path: Path) -> None:
    picture = tmp_path / "a.jpg"
    picture.write_bytes(jpeg(300, 200))
    script = """
import multiprocessing, sys
import giqa, giqa.client, giqa.decode, giqa.openvino, giqa.video

if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(1) as pool:
        found = pool.apply(giqa.score, sys.argv[1:])
    assert found.score == giqa.score(sys.argv[1]).score
"""
    subprocess.run([sys.executable, "-c", script, str(picture)], timeout=180, check=True)
