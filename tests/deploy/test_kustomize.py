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

from streamer.association.metrics import AssociatorMetrics
from streamer.composition import shard
from streamer.config import Config, load
from streamer.http import Face
from streamer.metrics import Metrics
from streamer.shard import Shard
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


CONTROLLERS = {"StatefulSet": "run", "Deployment": "associate"}
"""Kind of what starts pods -> what they run."""


@pytest.fixture(params=CONTROLLERS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def pod(cluster: dict[str, Any], kind: str) -> Any:
    return cluster[kind]["spec"]["template"]


@pytest.fixture
def container(pod: Any) -> Any:
    (container,) = pod["spec"]["containers"]
    return container


def test_it_reads_the_configuration_and_redis_secret(
    cluster: dict[str, Any], kind: str, container: Any, surroundings: Any, secrets: Path, tmp_path: Path
) -> None:
    (config,) = loaded(cluster, container, surroundings, tmp_path, [{}], CONTROLLERS[kind])
    assert config.redis.url == secret(secrets, "redis-url")
    assert config.associator.enabled


def test_pods_share_the_stations_out(cluster: dict[str, Any], surroundings: Any, tmp_path: Path) -> None:
    """Each pod's number is its shard's, and every station has one."""
    (container,) = cluster["StatefulSet"]["spec"]["template"]["spec"]["containers"]
    index = next(entry for entry in container["env"] if entry["name"] == "QUAKE_SHARD__INDEX")
    assert index["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.labels['apps.kubernetes.io/pod-index']"}}
    replicas = cluster["StatefulSet"]["spec"]["replicas"]
    numbers = [{"QUAKE_SHARD__INDEX": str(ordinal)} for ordinal in range(replicas)]
    configs = loaded(cluster, container, surroundings, tmp_path, numbers, "run")
    assert [shard(config) for config in configs] == [Shard(replicas, n) for n in range(replicas)]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert {str(config.state) for config in configs} == {mounts["state"]}
    stations = ["_".join(one.split(".")[:2]) for source in configs[0].source for one in source.select]
    shares = [[name for name in stations if shard(config).has(name)] for config in configs]
    assert all(shares)
    assert sorted(name for share in shares for name in share) == sorted(set(stations))


def loaded(
    cluster: dict[str, Any], container: Any, surroundings: Any, folder: Path, variables: list[dict[str, str]], verb: str
) -> list[Config]:
    """What the container's command reads, with its variables and each of these tables of more."""
    given = {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert given == {"QUAKE_REDIS_URL_FILE": f"{mounts['redis']}/redis-url"}
    chosen = parsed(container["args"])
    assert chosen.verb == verb
    path = folder / chosen.config.relative_to(mounts["config"])
    path.write_text(cluster["ConfigMap"]["data"][path.name])
    configs = []
    for more in variables:
        surroundings(VARIABLES, {"QUAKE_REDIS_URL_FILE": f"{SECRETS}/redis-url", **more})
        configs.append(load(path))
    return configs


def test_names_lead_somewhere(cluster: dict[str, Any], kind: str, pod: Any, container: Any) -> None:
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    claims = {claim["metadata"]["name"] for claim in cluster[kind]["spec"].get("volumeClaimTemplates", [])}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes.keys() | claims
    assert volumes["config"]["configMap"]["name"] == cluster["ConfigMap"]["metadata"]["name"]
    assert cluster["StatefulSet"]["spec"]["serviceName"] == cluster["Service"]["metadata"]["name"]
    assert {document["metadata"].get("namespace") for kind, document in cluster.items() if kind != "Namespace"} == {
        cluster["Namespace"]["metadata"]["name"]
    }


def test_everything_means_these_pods(cluster: dict[str, Any], kind: str, pod: Any) -> None:
    labels = pod["metadata"]["labels"]
    assert cluster[kind]["spec"]["selector"] == {"matchLabels": labels}
    for other in ("PodDisruptionBudget", "PodMonitor"):
        assert cluster[other]["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert cluster["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    assert (cluster["Service"]["spec"]["selector"] == labels) == (kind == "StatefulSet")


def test_nobody_takes_the_others_pods(cluster: dict[str, Any]) -> None:
    selectors = [cluster[kind]["spec"]["selector"]["matchLabels"] for kind in CONTROLLERS]
    assert selectors[0] != selectors[1]
    assert selectors[0].keys() == selectors[1].keys()


@pytest.mark.parametrize("probe", ["startupProbe", "livenessProbe", "readinessProbe"])
def test_a_probe_is_answered(kind: str, container: Any, probe: str) -> None:
    (port,) = container["ports"]
    asked = container[probe]["httpGet"]
    health = Metrics(max_stations=1) if kind == "StatefulSet" else AssociatorMetrics()
    answers = Face(health, lambda: False, "a-token-that-probes-do-not-have")
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
