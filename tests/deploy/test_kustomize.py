"""What the manifests name exists in the product, and they mean the same pods.

No cluster is here: Kubernetes' schemas are `scripts/check_deploy`'s, and docs/how-to/containers.md says what was never run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from deployed import DEPLOY, PORT, SECRETS, VARIABLES, parsed, secret

from streamer.config import Config, load
from streamer.http import Face
from streamer.metrics import Metrics
from streamer.source.address import PORT as SEEDLINK_PORT
from streamer.source.address import TLS_PORT


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    """The manifests as they are applied, by kind."""
    if shutil.which("kubectl") is None:
        assert not os.environ.get("CI"), "kubectl is missing"
        pytest.skip("no kubectl here:  apt-get install kubernetes-client")
    made = subprocess.run(["kubectl", "kustomize", DEPLOY / "kustomize"], capture_output=True, text=True, check=True)
    return {document["kind"]: document for document in yaml.safe_load_all(made.stdout)}


@pytest.fixture
def pod(cluster: dict[str, Any]) -> Any:
    return cluster["StatefulSet"]["spec"]["template"]


@pytest.fixture
def container(pod: Any) -> Any:
    (container,) = pod["spec"]["containers"]
    return container


def test_each_shard_has_stations_of_its_own(
    cluster: dict[str, Any], container: Any, surroundings: Any, secrets: Path, tmp_path: Path
) -> None:
    shards = cluster["ConfigMap"]["data"]
    assert {*shards} == {path.name for path in (DEPLOY / "kustomize" / "shards").iterdir()}
    assert cluster["StatefulSet"]["spec"]["replicas"] == len(shards)
    variables = {entry["name"]: entry.get("value", "") for entry in container["env"]}
    assert SECRETS in variables["QUAKE_REDIS_URL_FILE"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert variables["QUAKE_REDIS_URL_FILE"] == f"{mounts['redis']}/redis-url"
    surroundings(VARIABLES, {"QUAKE_REDIS_URL_FILE": f"{SECRETS}/redis-url"})
    loaded: list[Config] = []
    for ordinal in range(len(shards)):
        name = f"{cluster['StatefulSet']['metadata']['name']}-{ordinal}"
        chosen = parsed([argument.replace("$(POD_NAME)", name) for argument in container["args"]])
        assert chosen.verb == "run"
        path = tmp_path / chosen.config.relative_to(mounts["shards"])
        path.write_text(shards[path.name])
        loaded.append(load(path))
    selected = [pattern for config in loaded for source in config.source for pattern in source.select]
    assert len(set(selected)) == len(selected)
    assert {str(config.state) for config in loaded} == {mounts["state"]}
    assert {config.redis.url for config in loaded} == {secret(secrets, "redis-url")}


def test_names_lead_somewhere(cluster: dict[str, Any], pod: Any, container: Any) -> None:
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    claims = {claim["metadata"]["name"] for claim in cluster["StatefulSet"]["spec"]["volumeClaimTemplates"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes.keys() | claims
    assert volumes["shards"]["configMap"]["name"] == cluster["ConfigMap"]["metadata"]["name"]
    assert cluster["StatefulSet"]["spec"]["serviceName"] == cluster["Service"]["metadata"]["name"]
    assert {document["metadata"].get("namespace") for kind, document in cluster.items() if kind != "Namespace"} == {
        cluster["Namespace"]["metadata"]["name"]
    }


def test_everything_means_these_pods(cluster: dict[str, Any], pod: Any) -> None:
    labels = pod["metadata"]["labels"]
    for kind in ("StatefulSet", "PodDisruptionBudget", "PodMonitor"):
        assert cluster[kind]["spec"]["selector"] == {"matchLabels": labels}
    assert cluster["NetworkPolicy"]["spec"]["podSelector"] == {"matchLabels": labels}
    assert cluster["Service"]["spec"]["selector"] == labels


@pytest.mark.parametrize("probe", ["startupProbe", "livenessProbe", "readinessProbe"])
def test_a_probe_is_answered(container: Any, probe: str) -> None:
    (port,) = container["ports"]
    asked = container[probe]["httpGet"]
    answers = Face(Metrics(max_stations=1), lambda: False, "a-token-that-probes-do-not-have")
    assert answers.answer(asked["path"], "").status == (503 if probe == "readinessProbe" else 200)
    assert (asked["port"], port["containerPort"]) == (port["name"], PORT)


def test_it_is_restricted(cluster: dict[str, Any], pod: Any, container: Any) -> None:
    """As the Pod Security Standards say of `restricted`, and with a root that is read-only."""
    assert cluster["Namespace"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    whole, own = pod["spec"]["securityContext"], container["securityContext"]
    assert whole["runAsNonRoot"] is True
    assert whole["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert not pod["spec"].keys() & {"hostNetwork", "hostPID", "hostIPC", "initContainers"}
    kinds = {kind for volume in pod["spec"]["volumes"] for kind in volume if kind != "name"}
    assert kinds <= {"configMap", "secret", "emptyDir"}
    assert (DEPLOY / "Dockerfile").read_text().count(f"USER {whole['runAsUser']}:{whole['runAsGroup']}") == 1


def test_prometheus_finds_and_reaches_it(cluster: dict[str, Any], pod: Any, container: Any) -> None:
    """The definition of a PodMonitor is the operator's, and in no schema here."""
    monitor = cluster["PodMonitor"]
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    assert monitor["spec"].keys() == {"jobLabel", "selector", "podMetricsEndpoints"}
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    (port,) = container["ports"]
    assert endpoint == {"port": port["name"], "path": "/metrics", "interval": "15s"}
    answer = Face(Metrics(max_stations=1), lambda: True).answer(endpoint["path"], "")
    assert answer.status == 200
    scraped = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    assert pod["metadata"]["labels"][monitor["spec"]["jobLabel"]] == scraped[0]["job_name"]
    policy = cluster["NetworkPolicy"]["spec"]
    assert [entry["ports"] for entry in policy["ingress"]] == [[{"protocol": "TCP", "port": port["name"]}]]


def test_it_may_ask_names_stations_and_redis(cluster: dict[str, Any]) -> None:
    policy = cluster["NetworkPolicy"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    ports = {(port["protocol"], port["port"]) for entry in policy["egress"] for port in entry["ports"]}
    assert ports == {("UDP", 53), ("TCP", 53), ("TCP", SEEDLINK_PORT), ("TCP", TLS_PORT), ("TCP", 6379)}
