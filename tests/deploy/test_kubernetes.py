"""The manifests as `kubectl kustomize` renders them: valid for the API server, and true to the code they run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import jsonschema
import kubernetes_validate
import pytest
import yaml

from service.api.decoding import SECONDS, limits_of, memory_of
from service.api.services import MAX_INSPECTIONS
from service.core.messaging import Dispatcher
from service.core.settings import Settings, load_settings
from service.embedded.servers import WORKER_PATIENCE
from tests.deploy.custom_resources import SCHEMAS
from tests.service.api.conftest import serving
from tests.support.servers import MakeSettings
from worker.attempt.completion import ENDING_PATIENCE
from worker.attempt.retry import PATIENCE

K8S = Path(__file__).resolve().parents[2] / "deploy" / "k8s"
KUBERNETES = "1.32"
OVERLAYS = ("cpu", "nvidia-gpu")
COMPONENTS = ("base-per-worker", "ingress", "one-node", "openshift", "private-ca", "pull-secret", "store-ports")
NODE_TOLD = ("PAIRFORGE_SECRETS_DIR",)
"""Read beside the settings, by `load_settings`."""
MEBIBYTES = {"Mi": 1, "Gi": 1024}

Manifest = dict[str, Any]


def rendered(folder: str) -> list[Manifest]:
    return rendered_at(K8S / folder)


def rendered_at(folder: Path) -> list[Manifest]:
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl, which renders the manifests")
    command = ["kubectl", "kustomize", str(folder)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return list(yaml.safe_load_all(run.stdout))


def composed(folder: Path, overlay: str, *components: str) -> list[Manifest]:
    """An overlay with components, as a kustomization in a folder of somebody else asks for them."""
    k8s = os.path.relpath(K8S, folder)
    asked = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [f"{k8s}/overlays/{overlay}"],
        "components": [f"{k8s}/components/{name}" for name in components],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(asked))
    return rendered_at(folder)


def assert_valid(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        if schema := SCHEMAS.get(manifest["kind"]):
            jsonschema.validate(manifest, schema)
        else:
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


@pytest.fixture(scope="module", params=OVERLAYS)
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    return rendered(f"overlays/{request.param}")


def of_kind(manifests: list[Manifest], kind: str) -> dict[str, Manifest]:
    return {each["metadata"]["name"]: each for each in manifests if each["kind"] == kind}


def the(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    return of_kind(manifests, kind)[name]


def templates(manifests: list[Manifest]) -> dict[str, Manifest]:
    """Name of a Deployment or Job → its pods."""
    made = of_kind(manifests, "Deployment") | of_kind(manifests, "Job")
    return {name: each["spec"]["template"] for name, each in made.items()}


def containers(pod: Manifest) -> Iterator[Manifest]:
    yield from pod["spec"].get("initContainers", [])
    yield from pod["spec"]["containers"]


def all_containers(manifests: list[Manifest]) -> list[Manifest]:
    return [container for pod in templates(manifests).values() for container in containers(pod)]


def mebibytes(quantity: str) -> int:
    return int(quantity[:-2]) * MEBIBYTES[quantity[-2:]]


def selected(selector: Manifest, labels: dict[str, str]) -> bool:
    wanted = selector.get("matchLabels", {})
    rules = selector.get("matchExpressions", [])
    return wanted.items() <= labels.items() and all(labels.get(rule["key"]) in rule["values"] for rule in rules)


@pytest.mark.parametrize("folder", ["base", "example", *(f"overlays/{name}" for name in OVERLAYS)])
def test_every_object_is_valid_down_to_its_last_field(folder: str) -> None:
    assert_valid(rendered(folder))


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("component", COMPONENTS)
def test_every_component_is_valid_with_every_overlay_that_it_is_for(
    tmp_path: Path, overlay: str, component: str
) -> None:
    if overlay == "cpu" and component in {"base-per-worker", "one-node"}:
        pytest.skip("about the base of the GPU workers")
    assert sorted(COMPONENTS) == sorted(folder.name for folder in (K8S / "components").iterdir())
    manifests = composed(tmp_path, overlay, component)
    assert_valid(manifests)
    assert manifests != rendered(f"overlays/{overlay}")


def test_the_registrys_password_is_used_by_every_pod(tmp_path: Path) -> None:
    manifests = composed(tmp_path, "nvidia-gpu", "pull-secret")
    accounts = of_kind(manifests, "ServiceAccount")
    assert {pod["spec"]["serviceAccountName"] for pod in templates(manifests).values()} == accounts.keys()
    assert all(each["imagePullSecrets"] == [{"name": "pairforge-registry"}] for each in accounts.values())


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_private_authority_is_trusted_by_whatever_connects(tmp_path: Path, overlay: str) -> None:
    for pod in templates(composed(tmp_path, overlay, "private-ca")).values():
        for container in pod["spec"]["containers"]:
            told = {entry["name"]: entry["value"] for entry in container["env"]}
            (place,) = (mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "ca")
            assert told["AWS_CA_BUNDLE"] == told["SSL_CERT_FILE"] == f"{place}/ca.crt"
        assert {"name": "ca", "configMap": {"name": "pairforge-ca"}} in pod["spec"]["volumes"]


def test_the_ingress_leads_to_what_the_api_serves_and_to_no_figures(
    tmp_path: Path, server_settings: MakeSettings
) -> None:
    ingress = the(composed(tmp_path, "cpu", "ingress"), "Ingress", "pairforge-api")
    (rule,) = ingress["spec"]["rules"]
    paths = {entry["path"] for entry in rule["http"]["paths"]}
    assert {path.partition("/")[2].partition("/")[0] for path in paths} == {"", "page", "v1", "docs", "openapi.json"}
    with serving(server_settings()) as url:
        assert httpx2.get(f"{url}/openapi.json").status_code == 200
        assert httpx2.get(f"{url}/docs").status_code == 200
        asked = re.findall(r'(?:src|href)="([^"]+)"', httpx2.get(f"{url}/").text)
        assert asked
        assert all(each.startswith("page/") for each in asked)
    size = ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-body-size"]
    assert int(size.removesuffix("m")) * 2**20 >= Settings().max_body_bytes
    wait = ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-read-timeout"]
    assert int(wait) > SECONDS


def test_openshift_chooses_the_user(tmp_path: Path) -> None:
    for pod in templates(composed(tmp_path, "nvidia-gpu", "openshift")).values():
        assert pod["spec"]["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def test_one_node_needs_no_volume_that_several_share(tmp_path: Path) -> None:
    (claim,) = of_kind(composed(tmp_path, "nvidia-gpu", "one-node"), "PersistentVolumeClaim").values()
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]


def test_workers_that_fetch_for_themselves_share_no_volume(tmp_path: Path) -> None:
    manifests = composed(tmp_path, "nvidia-gpu", "base-per-worker")
    assert of_kind(manifests, "PersistentVolumeClaim") == of_kind(manifests, "Job") == {}
    pod = the(manifests, "Deployment", "pairforge-worker")["spec"]["template"]
    (fetch,) = pod["spec"]["initContainers"]
    assert fetch["command"] == ["/opt/fetch_base.sh"]
    assert {"name": "HF_HUB_OFFLINE", "value": "0"} in fetch["env"]
    assert not any(mount.get("readOnly") for mount in fetch["volumeMounts"])
    (models,) = (volume for volume in pod["spec"]["volumes"] if volume["name"] == "models")
    assert models.keys() == {"name", "ephemeral"}
    policy = the(manifests, "NetworkPolicy", "pairforge-base")["spec"]
    assert selected(policy["podSelector"], pod["metadata"]["labels"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_stores_at_other_ports_are_reached_with_a_component(tmp_path: Path, overlay: str) -> None:
    plain, more = (
        the(manifests, "NetworkPolicy", "allow-stores")["spec"]
        for manifests in (rendered(f"overlays/{overlay}"), composed(tmp_path, overlay, "store-ports"))
    )
    (before,), (after,) = plain["egress"], more["egress"]
    assert [port["port"] for port in before["ports"]] == [6379, 443]
    assert [port["port"] for port in after["ports"]] == [6379, 443, 6380, 9000]
    assert (after["to"], more["podSelector"]) == (before["to"], plain["podSelector"])


def test_the_example_is_what_an_operator_would_write() -> None:
    manifests = rendered("example")
    egress = the(manifests, "NetworkPolicy", "allow-stores")["spec"]["egress"]
    assert [port["port"] for rule in egress for port in rule["ports"]] == [6380, 9000]
    assert {c["image"].rpartition(":")[0] for c in all_containers(manifests)} == {
        "registry.example.com/pairforge/api",
        "registry.example.com/pairforge/worker-gpu",
    }


def test_an_unknown_field_is_not_valid(manifests: list[Manifest]) -> None:
    scaled = the(manifests, "ScaledObject", "pairforge-worker")
    scaled["spec"]["minReplicas"] = scaled["spec"].pop("minReplicaCount")
    with pytest.raises(jsonschema.ValidationError, match="minReplicas"):
        jsonschema.validate(scaled, SCHEMAS["ScaledObject"])
    scaled["spec"]["minReplicaCount"] = scaled["spec"].pop("minReplicas")


def test_no_container_can_become_more_than_it_is(manifests: list[Manifest]) -> None:
    for pod in templates(manifests).values():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert spec["serviceAccountName"] in of_kind(manifests, "ServiceAccount")
    for container in all_containers(manifests):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, container["name"]
    assert not any(each["automountServiceAccountToken"] for each in of_kind(manifests, "ServiceAccount").values())


def test_every_container_has_limits_and_what_it_writes_has_room(manifests: list[Manifest]) -> None:
    for container in all_containers(manifests):
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), container["name"]
        assert {"cpu", "memory"} <= container["resources"]["limits"].keys(), container["name"]
    for deployment in of_kind(manifests, "Deployment").values():
        spec = deployment["spec"]["template"]["spec"]
        empty = [volume["emptyDir"] for volume in spec["volumes"] if "emptyDir" in volume]
        on_disk = sum(mebibytes(each["sizeLimit"]) for each in empty if each.get("medium") != "Memory")
        limits = spec["containers"][0]["resources"]["limits"]
        assert on_disk <= mebibytes(limits["ephemeral-storage"])


def test_the_api_has_the_memory_for_all_that_it_decodes_at_a_time(manifests: list[Manifest]) -> None:
    (api,) = the(manifests, "Deployment", "pairforge-api")["spec"]["template"]["spec"]["containers"]
    decoding = MAX_INSPECTIONS * memory_of(limits_of(Settings())) / 2**20
    server = 256
    assert decoding + server <= mebibytes(api["resources"]["limits"]["memory"])


def test_every_deployment_is_probed_at_a_port_it_has(manifests: list[Manifest]) -> None:
    paths = {"api": ("/healthz", "/healthz", "/readyz"), "worker": ("/metrics", "/metrics", "/metrics")}
    for name, expected in paths.items():
        (container,) = the(manifests, "Deployment", f"pairforge-{name}")["spec"]["template"]["spec"]["containers"]
        probes = [container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")]
        assert tuple(probe["path"] for probe in probes) == expected
        assert {probe["port"] for probe in probes} <= {port["name"] for port in container["ports"]}


def test_images_have_a_version(manifests: list[Manifest]) -> None:
    for container in all_containers(manifests):
        assert re.fullmatch(r"pairforge/[\w-]+:\d+\.\d+\.\d+", container["image"]), container["image"]


def test_whatever_is_mounted_or_referred_to_is_there(manifests: list[Manifest]) -> None:
    settings, claims = of_kind(manifests, "ConfigMap"), of_kind(manifests, "PersistentVolumeClaim")
    example = yaml.safe_load((K8S / "secret.example.yaml").read_text())
    for pod in templates(manifests).values():
        volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes", [])}
        for volume in volumes.values():
            assert volume.get("persistentVolumeClaim", {"claimName": None})["claimName"] in {None, *claims}
            assert volume.get("secret", {"secretName": None})["secretName"] in {None, "pairforge"}
        for container in containers(pod):
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes.keys()
            assert {source["configMapRef"]["name"] for source in container.get("envFrom", [])} <= settings.keys()
    assert example["metadata"]["name"] == "EXAMPLE-pairforge"


def test_settings_are_settings(manifests: list[Manifest]) -> None:
    known = {f"PAIRFORGE_{name.upper()}" for name in Settings.model_fields} | set(NODE_TOLD)
    (config,) = of_kind(manifests, "ConfigMap").values()
    own = [entry["name"] for container in all_containers(manifests) for entry in container.get("env", [])]
    named = {name for name in (*config["data"], *own) if name.startswith("PAIRFORGE_")}
    assert named <= known
    assert Settings.model_validate(
        {name.removeprefix("PAIRFORGE_").lower(): value for name, value in config["data"].items()}
    ).require_keys


def test_folders_that_settings_name_can_be_written(manifests: list[Manifest]) -> None:
    (config,) = of_kind(manifests, "ConfigMap").values()
    for deployment in of_kind(manifests, "Deployment").values():
        spec = deployment["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        own = {entry["name"]: entry["value"] for entry in container.get("env", [])}
        writable = {volume["name"] for volume in spec["volumes"] if "emptyDir" in volume}
        places = {mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] in writable}
        temporary = "/tmp"  # noqa: S108  where every program looks
        wanted = {config["data"]["PAIRFORGE_SPOOL_DIR"], temporary, own.get("PROMETHEUS_MULTIPROC_DIR", temporary)}
        assert wanted <= places


def test_the_files_of_the_secret_are_read_as_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    example = yaml.safe_load((K8S / "secret.example.yaml").read_text())
    for name, value in example["stringData"].items():
        (tmp_path / name).write_text(value)
    monkeypatch.setenv("PAIRFORGE_SECRETS_DIR", str(tmp_path))
    settings = load_settings()
    assert settings.redis_url == example["stringData"]["pairforge_redis_url"]
    assert settings.s3_endpoint_url == example["stringData"]["pairforge_s3_endpoint_url"]
    assert settings.s3_secret_access_key is not None
    assert settings.s3_secret_access_key.get_secret_value() == "SECRET-ACCESS-KEY"
    assert len(settings.model_fields_set) == len(example["stringData"])


def test_the_example_of_a_secret_is_refused_by_the_api_server_and_part_of_nothing(manifests: list[Manifest]) -> None:
    example = yaml.safe_load((K8S / "secret.example.yaml").read_text())
    # What a name must be: RFC 1123 as Kubernetes reads it.
    assert not re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", example["metadata"]["name"])
    assert of_kind(manifests, "Secret") == {}


def test_a_worker_has_longer_to_end_than_it_needs_to_hand_over(manifests: list[Manifest]) -> None:
    grace = the(manifests, "Deployment", "pairforge-worker")["spec"]["template"]["spec"][
        "terminationGracePeriodSeconds"
    ]
    assert grace > PATIENCE + ENDING_PATIENCE
    assert grace > WORKER_PATIENCE


def test_the_scaled_object_scales_the_worker_and_never_to_nothing(manifests: list[Manifest]) -> None:
    spec = the(manifests, "ScaledObject", "pairforge-worker")["spec"]
    target = the(manifests, "Deployment", spec["scaleTargetRef"]["name"])
    assert target["metadata"]["name"] == "pairforge-worker"
    assert "replicas" not in target["spec"]
    assert 1 <= spec["minReplicaCount"] < spec["maxReplicaCount"]
    down = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
    assert down["stabilizationWindowSeconds"] >= 300
    # An empty answer must not count as zero.
    assert {trigger["metadata"]["ignoreNullValues"] for trigger in spec["triggers"]} == {"false"}


def test_the_scaled_object_asks_for_what_the_api_exposes(
    manifests: list[Manifest], server_settings: MakeSettings, dispatcher: Dispatcher
) -> None:
    dispatcher.send_training("adp_0")
    with serving(server_settings()) as url:
        exposed = httpx2.get(f"{url}/metrics").text
    for trigger in the(manifests, "ScaledObject", "pairforge-worker")["spec"]["triggers"]:
        names = re.findall(r"pairforge_\w+", trigger["metadata"]["query"])
        assert names
        for name in names:
            assert re.search(rf"^{name}[ {{]", exposed, re.MULTILINE), name


def test_every_pod_is_selected_by_policy_budget_and_monitor(manifests: list[Manifest]) -> None:
    labels = {name: pod["metadata"]["labels"] for name, pod in templates(manifests).items()}
    for kind in ("NetworkPolicy", "PodDisruptionBudget", "PodMonitor"):
        for name, manifest in of_kind(manifests, kind).items():
            selector = manifest["spec"].get("podSelector", manifest["spec"].get("selector"))
            assert any(selected(selector, each) for each in labels.values()), (kind, name)
    for service in of_kind(manifests, "Service").values():
        assert any(service["spec"]["selector"].items() <= each.items() for each in labels.values())
    for deployment in of_kind(manifests, "Deployment"):
        for kind in ("PodDisruptionBudget", "PodMonitor"):
            selectors = [each["spec"]["selector"] for each in of_kind(manifests, kind).values()]
            assert sum(selected(selector, labels[deployment]) for selector in selectors) == 1


def test_nothing_goes_in_or_out_unless_a_policy_says_so(manifests: list[Manifest]) -> None:
    policies = of_kind(manifests, "NetworkPolicy")
    assert policies["deny-all"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    opened = {name: policy["spec"]["ingress"] for name, policy in policies.items() if "ingress" in policy["spec"]}
    assert opened.keys() == {"pairforge-api", "pairforge-worker"}
    ports = {name: [port["port"] for rule in rules for port in rule["ports"]] for name, rules in opened.items()}
    assert ports == {"pairforge-api": ["http"], "pairforge-worker": ["metrics"]}
    assert all(rule["from"] for rules in opened.values() for rule in rules)


def test_names_are_looked_up_also_where_the_node_answers(manifests: list[Manifest]) -> None:
    (rule,) = the(manifests, "NetworkPolicy", "allow-dns")["spec"]["egress"]
    assert {"ipBlock": {"cidr": "169.254.20.10/32"}} in rule["to"]
    assert {(port["protocol"], port["port"]) for port in rule["ports"]} == {("UDP", 53), ("TCP", 53)}


def test_rules_and_dashboards_come_to_the_cluster_as_they_are() -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl, which packs the dashboards")
    run = subprocess.run([K8S / "monitoring.sh"], capture_output=True, text=True, check=True)
    *rules, dashboards = yaml.safe_load_all(run.stdout)
    for manifest in rules:
        jsonschema.validate(manifest, SCHEMAS["PrometheusRule"])
    kubernetes_validate.validate(dashboards, KUBERNETES, strict=True)
    files = sorted((K8S.parent / "prometheus" / "rules").glob("*.yml"))
    assert [manifest["spec"] for manifest in rules] == [yaml.safe_load(file.read_text()) for file in files]
    folder = K8S.parent / "grafana" / "dashboards"
    assert dashboards["data"] == {file.name: file.read_text() for file in folder.iterdir()}
    assert dashboards["metadata"]["labels"] == {"grafana_dashboard": "1"}


def test_prometheus_names_the_jobs_as_dashboards_know_them(manifests: list[Manifest]) -> None:
    for name, monitor in of_kind(manifests, "PodMonitor").items():
        pod = templates(manifests)[name]
        assert pod["metadata"]["labels"][monitor["spec"]["jobLabel"]] == name
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        ports = {port["name"] for container in containers(pod) for port in container.get("ports", [])}
        assert endpoint["port"] in ports


def test_no_variable_of_kubernetes_is_taken_for_a_setting(manifests: list[Manifest]) -> None:
    # The address of a Service `pairforge-metrics` would be the variable PAIRFORGE_METRICS_PORT.
    assert all(pod["spec"]["enableServiceLinks"] is False for pod in templates(manifests).values())


def test_only_workers_count_in_files(manifests: list[Manifest]) -> None:
    (config,) = of_kind(manifests, "ConfigMap").values()
    assert "PROMETHEUS_MULTIPROC_DIR" not in config["data"]
    (api,) = the(manifests, "Deployment", "pairforge-api")["spec"]["template"]["spec"]["containers"]
    assert "env" not in api


def test_a_gpu_worker_has_a_gpu_and_a_base_that_the_job_has_fetched() -> None:
    manifests = rendered("overlays/nvidia-gpu")
    spec = the(manifests, "Deployment", "pairforge-worker")["spec"]["template"]["spec"]
    (worker,), (config,) = spec["containers"], of_kind(manifests, "ConfigMap").values()
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert (config["data"]["PAIRFORGE_DEVICE"], config["data"]["HF_HUB_OFFLINE"]) == ("cuda", "1")
    assert all(mount["readOnly"] for mount in worker["volumeMounts"] if mount["name"] == "models")
    base = config["data"]["PAIRFORGE_BASE"]
    (job,) = of_kind(manifests, "Job").values()
    (fetch,) = containers(job["spec"]["template"])
    assert fetch["command"] == ["/opt/fetch_base.sh"]
    script = (K8S.parent / "compose" / "fetch_base.sh").read_text()
    (revision,) = re.findall(r"^revision=([0-9a-f]{40})$", script, re.MULTILINE)
    assert base == f"/models/stable-diffusion-v1-5-{revision[:12]}"
    (waits,) = spec["initContainers"]
    assert '"$PAIRFORGE_BASE/.complete"' in waits["command"][-1]
    assert 'touch "$base/.complete"' in script


def test_an_upgrade_makes_another_job_since_none_can_be_changed() -> None:
    (job,) = of_kind(rendered("overlays/nvidia-gpu"), "Job").values()
    (container,) = containers(job["spec"]["template"])
    assert job["metadata"]["name"].endswith(f"-{container['image'].rpartition(':')[2]}")
    assert job["spec"]["ttlSecondsAfterFinished"] > 0


def test_a_rollout_waits_for_the_base() -> None:
    spec = the(rendered("overlays/nvidia-gpu"), "Deployment", "pairforge-worker")["spec"]
    assert spec["progressDeadlineSeconds"] >= 3600


def test_compiled_code_is_kept_on_a_disk() -> None:
    spec = the(rendered("overlays/nvidia-gpu"), "Deployment", "pairforge-worker")["spec"]["template"]["spec"]
    (worker,) = spec["containers"]
    own = {entry["name"]: entry["value"] for entry in worker["env"]}
    on_disk = {v["name"] for v in spec["volumes"] if "emptyDir" in v and v["emptyDir"].get("medium") != "Memory"}
    places = [mount["mountPath"] for mount in worker["volumeMounts"] if mount["name"] in on_disk]
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        assert any(Path(own[name]).is_relative_to(place) for place in places)
