"""The image, its compose file, the dashboard and the alerts, as far as they can be checked here."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from build.commands import OF_ENGINES
from giqa.cli._serve import serve
from giqa.serving import BATCH
from tests.tools import promtool, tool

IMAGE = Path(__file__).parents[2] / "build" / "image"
PROMETHEUS = IMAGE / "prometheus"
DASHBOARD = IMAGE / "grafana" / "dashboards" / "giqa.json"
DOCKERFILE = (IMAGE / "Dockerfile").read_text()
ENTRYPOINT = IMAGE / "entrypoint.sh"
YAML = sorted(path for kind in ("yml", "yaml") for path in IMAGE.rglob(f"*.{kind}"))


def load(name: str) -> Any:
    return yaml.safe_load((IMAGE / name).read_text())


def panels() -> list[dict[str, Any]]:
    return json.loads(DASHBOARD.read_text())["panels"]


def expressions() -> list[str]:
    """The dashboard's queries, with a range in place of Grafana's own."""
    found = [target["expr"] for panel in panels() for target in panel.get("targets", ())]
    return [expr.replace("$__rate_interval", "1m") for expr in found]


def run(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], capture_output=True, text=True, **options)


def test_dockerfile_has_no_complaints() -> None:
    hadolint = tool("hadolint")
    assert hadolint is not None, "the extra `dev` brings it"
    done = run(hadolint, IMAGE / "Dockerfile")
    assert (done.returncode, done.stdout) == (0, "")


def test_dockerfile_copies_what_there_is_and_what_is_let_through(checkout: Path) -> None:
    copies = re.findall(r"^COPY (?!--from)(?:--\S+ )*(.+) \S+$", DOCKERFILE, re.M)
    sources = [source for line in copies for source in line.split()]
    assert {"giqa", "build", "pyproject.toml"} <= set(sources)
    ignored = (IMAGE / "Dockerfile.dockerignore").read_text().splitlines()
    for source in sources:
        assert (checkout / source).exists(), source
        assert f"!{source.split('/')[0]}" in ignored, source


def test_the_image_does_not_run_as_root() -> None:
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.M)[1:]
    names = [re.match(r"\S+ AS (\w+)", stage)[1] for stage in stages]
    assert names == ["wheel", "base", "engines", "serve"]
    users = re.findall(r"^USER (\S+)", stages[-2] + stages[-1], re.M)
    assert users == ["1000:1000"]
    for stage in stages[:2]:  # what is built and what is served on are of one release
        assert stage.startswith("nvcr.io/nvidia/tritonserver:${RELEASE}-py3 ")


def test_the_release_is_one_of_the_matrix() -> None:
    release = re.search(r"^ARG RELEASE=(\S+)$", DOCKERFILE, re.M)[1]
    assert f"| {release} |" in (IMAGE / "README.md").read_text()


def test_ports_agree() -> None:
    exposed = set(re.search(r"^EXPOSE (.+)$", DOCKERFILE, re.M)[1].split())
    served = dict(re.findall(r"--([a-z-]*port) (\d+)", ENTRYPOINT.read_text()))
    assert set(served.values()) == exposed
    assert f"127.0.0.1:{served['watch-port']}/ready" in DOCKERFILE
    jobs = {
        job["job_name"]: job["static_configs"][0]["targets"]
        for job in load("prometheus/prometheus.yml")["scrape_configs"]
    }
    assert jobs == {
        "giqa": [f"giqa:{served['metrics-port']}"],
        "giqa-watch": [f"giqa:{served['watch-port']}"],
    }


def test_entrypoint_runs_other_commands() -> None:
    done = run(ENTRYPOINT, "echo", "two words")
    assert (done.returncode, done.stdout) == (0, "two words\n")


def test_entrypoint_calls_serve_as_it_is() -> None:
    pytest.importorskip("giqa.serving")
    called = ENTRYPOINT.read_text().replace("\\\n", " ").splitlines()[-1]
    known = {name for option in serve.params for name in option.opts}
    assert {word for word in called.split() if word.startswith("--")} <= known


def test_entrypoint_without_a_gpu_ends_with_a_coded_error(tmp_path: Path) -> None:
    pytest.importorskip("giqa.serving")
    if tool("nvidia-smi"):
        pytest.skip("there is a GPU")
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = run(ENTRYPOINT, "engines", env={"PATH": path, "GIQA_ENGINES": str(tmp_path)})
    assert done.returncode == 1
    lines = done.stderr.splitlines()  # they do not fit, and cannot be built
    assert ["[engine_mismatch]" in line for line in lines] == [True, False, True], lines
    assert [p.name for p in tmp_path.iterdir()] == [".lock"]


@pytest.mark.parametrize("path", YAML, ids=lambda path: path.name)
def test_yaml_parses(path: Path) -> None:
    assert yaml.safe_load(path.read_text())


def test_compose_file() -> None:
    compose = load("compose.yaml")
    services = compose["services"]
    giqa = services["giqa"]
    build = giqa["build"]
    assert (IMAGE / build["context"] / build["dockerfile"]).samefile(IMAGE / "Dockerfile")
    (drain,) = (option.default for option in serve.params if option.name == "drain")
    assert int(giqa["stop_grace_period"].removesuffix("s")) > drain
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            here = source.startswith(".") and (IMAGE / source).is_dir()
            assert here or source in compose["volumes"], volume
    places = {volume.split(":")[1] for volume in services["grafana"]["volumes"]}
    (provider,) = load("grafana/provisioning/dashboards/giqa.yaml")["providers"]
    assert provider["options"]["path"] in places
    asked = set(re.findall(r"\$\{(GIQA_\w+)", ENTRYPOINT.read_text()))
    assert set(giqa["environment"]) == asked - {"GIQA_ENGINES"}


def driver_capabilities(asked: list[str]) -> set[str]:
    """What Docker sets NVIDIA_DRIVER_CAPABILITIES to: all that the request names and the driver
    has; the image's own where the request names nothing but `gpu`.
    """
    known = {"compute", "compat32", "graphics", "utility", "video", "display"}
    image = set(re.search(r"NVIDIA_DRIVER_CAPABILITIES=(\S+)", DOCKERFILE)[1].split(","))
    return known & set(asked) or image


def test_compose_gives_cuda() -> None:
    resources = load("compose.yaml")["services"]["giqa"]["deploy"]["resources"]
    (device,) = resources["reservations"]["devices"]
    assert device["driver"] == "nvidia"
    # CUDA; nvidia-smi, which `giqa serve` asks; the hardware's JPEG decoders.
    for asked in (device["capabilities"], ["gpu"]):
        assert {"compute", "utility", "video"} <= driver_capabilities(asked)


def test_the_containers_settings_are_those_of_the_commands() -> None:
    environment = load("compose.yaml")["services"]["giqa"]["environment"]
    defaults = {k: re.search(r":-(\w[\w.-]*)}", v)[1] for k, v in environment.items()}
    script = dict(re.findall(r"\{(GIQA_\w+):-([^}]+)\}", ENTRYPOINT.read_text()))
    assert defaults == {k: v for k, v in script.items() if k != "GIQA_ENGINES"}
    assert int(defaults["GIQA_MAX_BATCH"]) == BATCH["gpu"]
    assert defaults["GIQA_PRECISION"] == OF_ENGINES
    table = dict(
        re.findall(r"^\| `(GIQA_\w+)` \| `?([^`|]+?)`? \|", (IMAGE / "README.md").read_text(), re.M)
    )
    assert table == script


def test_engines_and_timings_lie_where_no_other_gpu_looks(tmp_path: Path) -> None:
    """With a program in the place of Python that says which machine it is, and builds."""
    python = tmp_path / "bin" / "python3"
    python.parent.mkdir()
    python.write_text(
        '#!/bin/sh\necho "$@" >>"$CALLS"\ncase "$*" in\n*.key*) echo "$KEY" ;;\n'
        '"- "*) exit 1 ;;\nesac\n'
    )
    python.chmod(0o755)
    places = []
    for key in ("sm90-tensorrt10.13.2", "sm89-tensorrt10.13.2", "sm90-tensorrt11.1.0"):
        calls = tmp_path / key
        env = {
            "PATH": f"{python.parent}:/usr/bin:/bin",
            "GIQA_ENGINES": str(tmp_path),
            "KEY": key,
            "CALLS": str(calls),
        }
        assert run(ENTRYPOINT, "engines", env=env).returncode == 0
        (build,) = (line for line in calls.read_text().splitlines() if "build engines" in line)
        words = build.split()
        place = [words[words.index(o) + 1] for o in ("--timing-cache", "--out")]
        assert all(key in path for path in place)
        places += place
    assert len(set(places)) == 6


def test_dashboard() -> None:
    (source,) = load("grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    cells: set[tuple[int, int]] = set()
    ids = [panel["id"] for panel in panels()]
    assert len(ids) == len(set(ids))
    for panel in panels():
        place = panel["gridPos"]
        mine = set(
            itertools.product(
                range(place["x"], place["x"] + place["w"]),
                range(place["y"], place["y"] + place["h"]),
            )
        )
        assert not mine & cells, panel["title"]
        assert max(x for x, _ in mine) < 24
        cells |= mine
        for target in panel.get("targets", ()):
            assert target["datasource"]["uid"] == source["uid"]


def test_dashboard_queries_parse(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{n}", "expr": expr} for n, expr in enumerate(expressions())]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = run(promtool(), "check", "rules", path)
    assert done.returncode == 0, done.stderr
    assert f"{len(rules)} rules found" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    ["check config prometheus.yml", "check rules rules.yml", "test rules rules_test.yml"],
)
def test_prometheus_accepts(arguments: str) -> None:
    done = run(promtool(), *arguments.split(), cwd=PROMETHEUS)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_seen_to_fire() -> None:
    rules = [r for group in load("prometheus/rules.yml")["groups"] for r in group["rules"]]
    alerts = {rule["alert"] for rule in rules if "alert" in rule}
    fired = set(re.findall(r"\bGiqa\w+", (PROMETHEUS / "rules_test.yml").read_text()))
    assert fired == alerts
    for rule in rules:
        if "alert" in rule:
            assert {*rule["annotations"]} == {"summary", "action"}, rule["alert"]
