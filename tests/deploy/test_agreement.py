"""Do the deployment files say what the Procfile, the settings and the web say?"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from pydantic_settings import BaseSettings

import dispatcher.flower_options
import dispatcher.settings
import web.settings
import worker_agent.settings
from devstack import PROJECT_ROOT
from devstack.supervision import read_procfile
from dispatcher.observability.liveness import PERIOD_S
from worker_agent.settings import AgentSettings

from . import manifests
from .manifests import KUBERNETES, SYSTEMD, container_of, deployments, environment_of, units
from .wheels import locked

PROCESSES = set(read_procfile(PROJECT_ROOT / "Procfile"))
DRAIN_S = AgentSettings.model_fields["drain_s"].default
# Settings that are no field of a settings class: where they are read instead.
READ_ELSEWHERE = (
    "web/gunicorn_conf.py",
    "Procfile",
    "dispatcher/observability/tracing.py",
    "dispatcher/observability/otel.py",
)
# Flower reads every option of its own from such a variable; these are the ones that we set.
FLOWERS_OWN = {"FLOWER_BASIC_AUTH"}


def known_variables() -> set[str]:
    """Every variable that some process reads."""
    classes = [
        each
        for module in (
            dispatcher.settings,
            dispatcher.flower_options,
            web.settings,
            worker_agent.settings,
        )
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, BaseSettings)
    ]
    fields = [field for each in classes for field in each.model_fields.values()]
    aliases = {str(field.alias) for field in fields}
    read = [PROJECT_ROOT / name for name in READ_ELSEWHERE]
    return aliases | FLOWERS_OWN | {name for path in read for name in manifests.variables(path)}


def test_there_is_a_unit_for_every_process_and_none_more() -> None:
    assert {unit.process for unit in units().values()} == PROCESSES
    for name, unit in units().items():
        assert unit["ExecStart"] == f"/opt/usher/current/deploy/run {unit.process}"
        assert re.fullmatch(rf"usher-{unit.process}@?\.service", name)


def test_the_target_wants_every_unit() -> None:
    wanted = " ".join(manifests.Unit(SYSTEMD / "usher.target").all("Wants")).split()

    assert {re.sub(r"@\d+", "@", name) for name in wanted} == set(units())
    # What a restart wants two of has two.
    assert {name for name in units() if "@" in name} == {
        re.sub(r"@\d+", "@", name) for name in wanted if name.endswith("@2.service")
    }


def test_there_is_a_service_of_compose_for_every_process_and_none_more() -> None:
    assert {service["command"][0] for service in manifests.services().values()} == PROCESSES
    assert set(manifests.services()) == PROCESSES


def test_there_is_a_deployment_for_every_process_and_none_more() -> None:
    assert set(deployments()) == PROCESSES
    for name, pod in deployments().items():
        assert container_of(pod)["args"] == [name]


@pytest.mark.parametrize("path", manifests.files(), ids=lambda path: str(path.name))
def test_every_setting_that_is_named_exists(path: Path) -> None:
    assert manifests.variables(path) - known_variables() == set()


def test_a_process_that_the_procfile_does_not_name_is_refused() -> None:
    ran = subprocess.run(
        [str(manifests.DEPLOY / "run"), "wbe"], capture_output=True, text=True, timeout=10
    )

    assert ran.returncode == 2
    assert "names no process wbe" in ran.stderr


@pytest.mark.parametrize("kind", ["agent", "dispatcher"])
def test_a_list_of_one_kind_of_machine_is_a_part_of_the_whole_list(kind: str) -> None:
    listed = locked(f"deploy/requirements-{kind}.txt")

    assert listed
    assert listed.items() <= locked("requirements.txt").items()


def test_an_agent_server_is_given_longer_than_its_drain_everywhere() -> None:
    in_the_pod = int(environment_of(container_of(deployments()["agent"]))["USHER_AGENT_DRAIN_S"])
    assert deployments()["agent"]["terminationGracePeriodSeconds"] > in_the_pod == DRAIN_S
    assert int(units()["usher-agent@.service"]["TimeoutStopSec"]) > DRAIN_S
    assert int(manifests.services()["agent"]["stop_grace_period"].rstrip("s")) > DRAIN_S


@pytest.mark.parametrize("name", sorted(PROCESSES))
def test_every_process_is_checked_and_the_check_is_there(name: str) -> None:
    container = container_of(deployments()[name])
    probes = manifests.probes_of(container)
    environ = environment_of(container)

    assert set(probes) == {"startupProbe", "readinessProbe", "livenessProbe"}
    assert "healthcheck" in manifests.services()[name]
    ports = {port["name"]: str(port["containerPort"]) for port in container.get("ports", [])}
    for probe in probes.values():
        if "exec" in probe:
            assert probe["exec"]["command"] == ["/opt/usher/deploy/alive"]
            assert probe["periodSeconds"] >= PERIOD_S
            assert environ["USHER_ALIVE_FILE"].startswith("/tmp/")
        else:
            variable = {"web": "USHER_WEB", "agent": "USHER_AGENT", "flower": "FLOWER"}[name]
            assert ports[probe["httpGet"]["port"]] == environ[f"{variable}_PORT"]
            assert "0.0.0.0" in environ.values()  # the kubelet asks from outside


def test_selectors_find_what_they_are_for() -> None:
    labels = [
        each["spec"]["template"]["metadata"]["labels"]
        for each in manifests.objects()
        if each["kind"] == "Deployment"
    ]
    for each in manifests.objects():
        if each["kind"] == "Namespace":
            continue
        selector = each["spec"]["selector"]
        wanted = selector.get("matchLabels", selector)
        found = [label for label in labels if wanted.items() <= label.items()]
        assert len(found) == 1, each["metadata"]["name"]
        if each["kind"] == "Service":
            pod = deployments()[wanted["app.kubernetes.io/component"]]
            names = {port["name"] for port in container_of(pod)["ports"]}
            assert {port["targetPort"] for port in each["spec"]["ports"]} <= names


@pytest.mark.parametrize("name", sorted(PROCESSES))
def test_no_process_may_more_than_it_needs(name: str) -> None:
    pod = deployments()[name]
    container = container_of(pod)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    mounted = {each["name"] for each in container["volumeMounts"]}
    assert mounted == {each["name"] for each in pod["volumes"]}


def test_the_schemas_of_kubernetes_know_every_field() -> None:
    for each in manifests.objects():
        kubernetes_validate.validate(each, "1.30", strict=True)


def test_a_field_that_kubernetes_does_not_know_is_found() -> None:
    [pod, *_] = [each for each in manifests.objects() if each["kind"] == "Deployment"]
    pod["spec"]["template"]["spec"]["terminationGracePeriod"] = 30

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(pod, "1.30", strict=True)


def test_the_kustomization_takes_every_file_and_sets_what_no_secret_is() -> None:
    kustomization = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
    paths = {path.name for path in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml"}

    assert set(kustomization["resources"]) == paths
    [generated] = kustomization["configMapGenerator"]
    secret = manifests.variables(KUBERNETES / "secret.env.example")
    assert secret >= {"REDIS_URL", "LIVEKIT_API_SECRET", "FLOWER_BASIC_AUTH"}
    assert not secret & {line.partition("=")[0] for line in generated["literals"]}
    images = {each["name"] for each in kustomization["images"]}
    for name, pod in deployments().items():
        container = container_of(pod)
        assert container["envFrom"] == [
            {"configMapRef": {"name": generated["name"]}},
            {"secretRef": {"name": "usher"}},
        ]
        assert container["image"] == ("usher-agent" if name == "agent" else "usher")
        assert container["image"] in images


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not here")
def test_kustomize_puts_everything_together() -> None:
    built = subprocess.run(
        ["kubectl", "kustomize", str(KUBERNETES)], capture_output=True, text=True, timeout=60
    )

    assert built.returncode == 0, built.stderr
    found = list(yaml.safe_load_all(built.stdout))
    [config] = [each for each in found if each["kind"] == "ConfigMap"]
    assert len(found) == len(manifests.objects()) + 1
    for each in found:
        kubernetes_validate.validate(each, "1.30", strict=True)
        if each["kind"] == "Deployment":
            container = container_of(each["spec"]["template"]["spec"])
            # By its name with the hash: another setting is another rollout.
            assert container["envFrom"][0]["configMapRef"]["name"] == config["metadata"]["name"]
            assert container["image"].startswith("registry.example/usher")
