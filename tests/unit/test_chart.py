"""The Helm chart, rendered by Helm itself, and KServe's service: by Kubernetes' own schemas."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from giqa.cli._serve import serve
from giqa.serving import BATCH, QUEUE
from tests.helm import HelmError, lint, render

VERSION = "1.31"
CUSTOM = ("monitoring.coreos.com/v1", "serving.kserve.io/v1beta1")
"""Definitions of others, which Kubernetes' schemas do not have."""

EVERYTHING = {
    "tokens": {"secret": "t"},
    "adminKey": {"secret": "a"},
    "tls": {"secret": "c"},
    "bundle": {"claim": "b", "path": "mine"},
    "autoscaling": {"enabled": True},
    "serviceMonitor": {"enabled": True, "labels": {"release": "p"}},
    "networkPolicy": {"clients": [{"namespaceSelector": {}}]},
    "options": ["--precision=int8"],
    "runtimeClassName": "nvidia",
    "nodeSelector": {"a": "b"},
    "tolerations": [{"operator": "Exists"}],
    "imagePullSecrets": [{"name": "r"}],
}
VARIANTS: dict[str, dict[str, Any]] = {
    f"{device}{' with everything' if more else ''}": {"device": device, **more}
    for device in ("cpu", "gpu")
    for more in ({}, EVERYTHING)
}


def rendered(checkout: Path, values: dict[str, Any]) -> list[dict[str, Any]]:
    files = render(checkout / "build" / "chart", values)
    found = [yaml.safe_load_all(text) for name, text in files.items() if name.endswith(".yaml")]
    return [document for documents in found for document in documents if document]


@pytest.fixture(params=VARIANTS)
def values(request: pytest.FixtureRequest) -> dict[str, Any]:
    return VARIANTS[request.param]


@pytest.fixture
def documents(values: dict[str, Any], checkout: Path) -> list[dict[str, Any]]:
    return rendered(checkout, values)


def pods(documents: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for document in documents:
        if document["kind"] == "Deployment":
            yield document["spec"]["template"]["spec"]
        if document["kind"] == "InferenceService":
            yield document["spec"]["predictor"]


def arguments(pod: dict[str, Any]) -> dict[str, str]:
    (container,) = pod["containers"]
    command, *options = container["args"]
    assert command == "serve"
    return dict(option.split("=", 1) for option in options)


def test_kubernetes_takes_it(documents: list[dict[str, Any]]) -> None:
    refused = {}
    for document in (d for d in documents if d["apiVersion"] not in CUSTOM):
        try:
            kubernetes_validate.validate(document, VERSION, strict=True)
        except kubernetes_validate.ValidationError as e:
            refused[document["kind"]] = e.message
    assert refused == {}


def test_helm_has_nothing_to_complain_of(checkout: Path, values: dict[str, Any]) -> None:
    found = lint(checkout / "build" / "chart", values)
    assert "[ERROR]" not in found


def test_everything_asked_for_is_there(documents: list[dict[str, Any]], values: dict) -> None:
    kinds = {document["kind"] for document in documents}
    wanted = {"Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"}
    wanted |= {"PersistentVolumeClaim"} if values["device"] == "gpu" else set()
    if "autoscaling" in values:
        wanted |= {"HorizontalPodAutoscaler", "ServiceMonitor", "PrometheusRule"}
    assert kinds == wanted


def inference_service(checkout: Path) -> list[dict[str, Any]]:
    path = checkout / "build" / "image" / "inference-service.yaml"
    return list(yaml.safe_load_all(path.read_text()))


def test_an_inference_service_holds_a_valid_pod(checkout: Path) -> None:
    (pod,) = pods(inference_service(checkout))
    own = {k: v for k, v in pod.items() if k not in ("minReplicas", "maxReplicas", "timeout")}
    document = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": own}
    kubernetes_validate.validate(document, VERSION, strict=True)
    check_pod(pod)


def test_pods_are_as_the_server_needs_them(documents: list[dict[str, Any]]) -> None:
    (pod,) = pods(documents)
    check_pod(pod)


def check_pod(pod: dict[str, Any]) -> None:
    (container,) = pod["containers"]
    known = {name for option in serve.params for name in option.opts}
    given = arguments(pod)
    assert set(given) <= known
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    numbers = {int(value) for option, value in given.items() if option.endswith("port")}
    assert numbers >= {*ports.values()}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        ((kind, where),) = ((k, v) for k, v in container[probe].items() if k in ("httpGet", "grpc"))
        assert where["port"] in numbers or (kind == "httpGet" and where["port"] in ports)
    # Time for who is still asking, for what is under way, and for the end.
    lame = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert lame > 0
    drain = float(given.get("--drain", 30))
    assert pod["terminationGracePeriodSeconds"] >= lame + drain + 20
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert volumes[mounts["/dev/shm"]]["emptyDir"]["medium"] == "Memory"
    assert set(mounts.values()) == set(volumes)
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert pod["securityContext"]["runAsNonRoot"]
    # Secrets are files that are mounted, never values.
    for option, path in given.items():
        if path.startswith("/secrets/"):
            assert any(path.startswith(f"{mount}/") for mount in mounts), option
    assert not [
        entry for entry in container.get("env", []) if re.search("TOKEN|KEY", entry["name"])
    ]


def test_services_and_policies_name_ports_that_there_are(documents: list[dict[str, Any]]) -> None:
    (pod,) = pods(documents)
    names = {port["name"] for port in pod["containers"][0]["ports"]}
    for document in documents:
        spec = document["spec"]
        if document["kind"] == "Service":
            assert {port["targetPort"] for port in spec["ports"]} <= names
        if document["kind"] == "ServiceMonitor":
            assert {endpoint["port"] for endpoint in spec["endpoints"]} <= names
        if document["kind"] == "NetworkPolicy":
            assert {p["port"] for rule in spec["ingress"] for p in rule["ports"]} == names


def test_the_autoscaler_asks_for_a_metric_that_is_recorded(checkout: Path) -> None:
    documents = rendered(checkout, VARIANTS["cpu with everything"])
    kinds = {document["kind"]: document["spec"] for document in documents}
    (asked,) = kinds["HorizontalPodAutoscaler"]["metrics"]
    (rule,) = kinds["PrometheusRule"]["groups"][0]["rules"]
    assert rule["record"] == asked["pods"]["metric"]["name"]
    assert "replicas" not in kinds["Deployment"]


@pytest.mark.parametrize(
    "values", [{"device": "tpu"}, {"maxBatch": 0}, {"no-such": 1}, {"drainSeconds": "x"}]
)
def test_values_that_make_no_sense(values: dict[str, Any], checkout: Path) -> None:
    with pytest.raises(HelmError):
        rendered(checkout, values)


def commands(checkout: Path, program: str) -> Iterator[list[str]]:
    """What documents tell people to type."""
    root = checkout / "build"
    for page in (*root.rglob("*.md"), *root.rglob("values.yaml"), checkout / "README.md"):
        for words in re.findall(rf"\b{program} [^`\n]+", page.read_text()):
            yield shlex.split(words.split(" #")[0])


def test_what_documents_say_of_the_chart_is_taken_by_it(checkout: Path) -> None:
    said = [words for words in commands(checkout, "helm install") if "--set" in words]
    assert len(said) >= 2
    for words in said:
        assert (checkout / "build" / "chart").samefile(checkout / words[3])
        values: dict[str, Any] = {}
        for option, setting in itertools.pairwise(words):
            if option == "--set" and "=" in setting and setting != "KEY=VALUE":
                *folders, name = setting.partition("=")[0].split(".")
                inner = values
                for folder in folders:
                    inner = inner.setdefault(folder, {})
                inner[name] = setting.partition("=")[2]
        assert rendered(checkout, values)


@pytest.mark.parametrize("program", ["kubectl apply", "docker build", "docker compose"])
def test_files_that_documents_name_are_there(program: str, checkout: Path) -> None:
    said = [words for words in commands(checkout, program) if "-f" in words]
    assert said
    for words in said:
        assert (checkout / words[words.index("-f") + 1]).is_file(), words


def test_chart_and_compose_name_the_same_settings(checkout: Path) -> None:
    """Of a GPU's container: what stands in one deployment's defaults stands in the other's."""
    compose = yaml.safe_load((checkout / "build" / "image" / "compose.yaml").read_text())
    said = compose["services"]["giqa"]["environment"]
    wanted = {key: re.search(r":-(.*)}", value)[1] for key, value in said.items()}
    (pod,) = pods(rendered(checkout, {"device": "gpu"}))
    (container,) = pod["containers"]
    found = {one["name"]: one["value"] for one in container["env"]}
    assert found.items() <= wanted.items()
    assert found["GIQA_MAX_BATCH"] == str(BATCH["gpu"])
    queue = next(a for a in container["args"] if a.startswith("--max-queue="))
    assert queue == f"--max-queue={QUEUE['gpu']}"
    (pod,) = pods(rendered(checkout, {"device": "cpu"}))
    (container,) = pod["containers"]
    assert f"--max-batch={BATCH['cpu']}" in container["args"]
    assert f"--max-queue={QUEUE['cpu']}" in container["args"]
