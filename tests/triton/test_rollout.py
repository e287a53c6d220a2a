"""A new bundle without downtime: beside the old one, with a share, alone, and back."""

from __future__ import annotations

import json
import shutil
import threading
import time
import urllib.request
from collections import Counter
from pathlib import Path

import pytest

from giqa.bundle import MANIFEST, Bundle, load_bundle
from giqa.contract import GIQA, IMAGE, SCORE
from giqa.errors import UsageError
from giqa.kserve import BUNDLE_DIGEST, Tensor, request, service_stub
from giqa.serving import read_plan
from tests.makers import jpeg
from tests.triton.conftest import Served, commanded


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[bundles]",
        "[bundles.a]\nshare = 1.0",
        '[bundles.a]\nbundle = "x"\nshare = 0',
        '[bundles.a]\nbundle = "x"\nshare = nan',
        '[bundles.a]\nbundle = "x"\nweight = 1',
        '[bundles.a]\nbundle = "x"\n[bundles.b]\nbundle = "x"',
        "not TOML",
        "\n".join(f'[bundles.b{n}]\nbundle = "{n}"' for n in range(5)),
    ],
)
def test_files_that_name_no_bundles(text: str, tmp_path: Path) -> None:
    file = tmp_path / "bundles.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match="bundles.toml"):
        read_plan(file)


def plan(**shares: float) -> str:
    entries = [
        f'[bundles.b{n}]\nbundle = "{bundle}"\nshare = {share}'
        for n, (bundle, share) in enumerate(shares.items())
    ]
    return "\n".join(entries)


@pytest.fixture
def other(tmp_path: Path) -> Bundle:
    """The default bundle under another version: another digest, and a name of its own in rows."""
    folder = tmp_path / "other"
    shutil.copytree(load_bundle().folder, folder)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["version"] = "9.9.9"
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return load_bundle(folder)


@pytest.mark.slow
def test_switching_under_load(bundle: Bundle, other: Bundle, tmp_path: Path) -> None:
    file = tmp_path / "bundles.toml"
    file.write_text(plan(**{"giqa-s": 1.0}))
    over = threading.Event()
    failed: list[str] = []
    seen: Counter[str] = Counter()
    image = jpeg()
    with commanded(tmp_path, "--rollout", str(file), "--canary-deadline", "60") as served:

        def http() -> None:
            headers = {"Authorization": f"Bearer {Served.TEAM}"}
            while not over.is_set():
                url = f"http://127.0.0.1:{served.http}/score"
                asked = urllib.request.Request(url, image, headers, method="POST")
                try:
                    with urllib.request.urlopen(asked, timeout=120) as response:
                        seen[json.loads(response.read())["bundle"]] += 1
                except OSError as e:
                    failed.append(f"http: {e}")

        def grpc() -> None:
            """One connection: never two bundles by turns."""
            mine: list[str] = []
            inputs = {IMAGE: Tensor("UINT8", (1, len(image)), image)}
            with served.connection.channel() as channel:
                stub = service_stub(channel)
                while not over.is_set():
                    try:
                        reply = stub.ModelInfer(
                            request(GIQA, inputs, [SCORE]),
                            timeout=120,
                            metadata=served.connection.metadata,
                        )
                        digest = reply.parameters[BUNDLE_DIGEST].string_param
                        if [digest] != mine[-1:]:
                            mine.append(digest)
                    except Exception as e:
                        failed.append(f"grpc: {e}")
            if len(mine) > 5:  # four changes of the file
                failed.append(f"grpc: {mine}")

        def switch(text: str, wanted: set[str]) -> None:
            file.write_text(text)
            started = time.monotonic()
            while True:
                seen.clear()
                time.sleep(6)
                if {*seen} == wanted:
                    return
                log = (tmp_path / "log").read_text()
                assert time.monotonic() - started < 400, (seen, failed, log[-2000:])

        threads = [threading.Thread(target=work) for work in (http, http, grpc, grpc)]
        for thread in threads:
            thread.start()
        try:
            old, new = bundle.manifest.id, other.manifest.id
            switch(plan(**{"giqa-s": 0.5, str(other.folder): 0.5}), {old, new})
            switch(plan(**{str(other.folder): 1.0}), {new})
            switch("[bundles", {new})  # what is no plan changes nothing
            switch(plan(**{"giqa-s": 1.0, "/nowhere": 1.0}), {new})
            switch(plan(**{"giqa-s": 1.0}), {old})  # and back, in one command
        finally:
            over.set()
            for thread in threads:
                thread.join(150)
        assert not failed, failed[:5]
