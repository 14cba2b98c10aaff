"""docker-compose.yml starts nothing that is root, open or secret by default, and its images hold what they need."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions, requires
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from service.api.decoding import limits_of, memory_of
from service.api.services import MAX_INSPECTIONS
from service.core.settings import Settings
from tests.test_architecture import imports_of, sources

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
ONE_SHOT = {name for name, service in SERVICES.items() if service["restart"] == "no"}
OPEN = {"edge", "monitoring"}
DOCKERFILES = ("Dockerfile.gpu", "deploy/Dockerfile.api")
SERVERS = "deploy/Dockerfile.servers"
USER = "10001:10001"


def volumes_of(name: str) -> dict[str, str]:
    """Named volume → where the service mounts it."""
    mounts: dict[str, str] = {}
    for volume in SERVICES[name].get("volumes", []):
        source, target = (volume["source"], volume["target"]) if isinstance(volume, dict) else volume.split(":")[:2]
        mounts[source] = target
    return mounts


def copied(file: str) -> list[tuple[str, str, str]]:
    """Options, source and target of what a Dockerfile copies from the repository into images that run."""
    text = (ROOT / file).read_text()
    stages = text if file == SERVERS else text[text.rindex("\nFROM ") :]
    lines = re.findall(r"^COPY (?!--from)((?:--\S+ )*)(\S+) (\S+)$", stages, re.MULTILINE)
    return [(options.strip(), source, target) for options, source, target in lines]


def kibibytes(quantity: str) -> int:
    return int(quantity[:-1]) * {"m": 2**10, "g": 2**20}[quantity[-1]]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_may_do_nothing_that_it_need_not(name: str) -> None:
    service = SERVICES[name]
    assert service["user"] == USER
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["pids_limit"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_runs_for_months(name: str) -> None:
    service = SERVICES[name]
    assert service["init"] is True
    assert set(service["logging"]["options"]) == {"max-size", "max-file"}
    if name in ONE_SHOT:
        assert "healthcheck" not in service
    else:
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_has_a_version(name: str) -> None:
    repository, _, tag = SERVICES[name]["image"].rpartition(":")
    assert repository
    assert re.match(r"v?\d+\.\d+", tag)


def test_the_servers_of_others_have_versions_that_an_operator_may_change() -> None:
    text = (ROOT / SERVERS).read_text()
    images = dict(re.findall(r"^ARG (\w+)=(\S+)$", text, re.MULTILINE))
    assert all(re.search(r":v?\d+\.\d+[\w.-]*(@sha256:[0-9a-f]{64})?$", image) for image in images.values())
    targets = dict(re.findall(r"^FROM \$\{(\w+)\} AS (\S+)$", text, re.MULTILINE))
    assert targets.keys() == images.keys()
    asked = {s["build"]["target"] for s in SERVICES.values() if "target" in s.get("build", {})}
    assert set(targets.values()) == asked


def test_our_images_are_built_here_and_asked_of_no_registry() -> None:
    ours = {name for name, service in SERVICES.items() if service["image"].startswith("pairforge/")}
    built = {"s3", "prometheus", "grafana", "dcgm-exporter"}
    assert ours == {"secrets", "api", "worker", "worker-gpu", "fetch-base", *built}
    assert {name for name, service in SERVICES.items() if "build" in service} == ours
    assert {name for name, service in SERVICES.items() if service.get("pull_policy") == "build"} == ours


def test_the_limits_of_memory_add_up_to_what_the_runbook_says() -> None:
    units = {"m": 1 / 1024, "g": 1}
    lasting = [service for name, service in SERVICES.items() if name not in ONE_SHOT and "profiles" not in service]
    total = sum(int(service["mem_limit"][:-1]) * units[service["mem_limit"][-1]] for service in lasting)
    runbook = (ROOT / "deploy" / "RUNBOOK.md").read_text()
    (told,) = re.findall(r"or (\d+) for all containers to reach their limits", runbook)
    assert int(told) - 1 < total <= int(told)


def test_ports_are_open_on_this_machine_alone() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {"api", "s3", "prometheus", "grafana"}
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)


def test_what_has_no_port_is_reached_from_no_other_network() -> None:
    assert COMPOSE["networks"]["backend"] == {"internal": True}
    for name, service in SERVICES.items():
        if name == "secrets":
            assert service["network_mode"] == "none"
        elif name == "fetch-base":
            assert service["networks"] == ["edge"]
        else:
            assert "backend" in service["networks"]
            assert bool(OPEN & set(service["networks"])) == ("ports" in service), name


def test_what_is_kept_is_in_declared_volumes_that_belong_to_the_user() -> None:
    used = {volume for name in SERVICES for volume in volumes_of(name)}
    assert used == set(COMPOSE["volumes"])
    # Whichever service is created first, only the mount in `secrets` decides whose a volume is.
    assert volumes_of("secrets") == {volume: f"/volumes/{volume}" for volume in used}
    made = re.search(r"for name in (.*?);", (ROOT / "deploy/Dockerfile.api").read_text(), re.DOTALL)
    assert made is not None
    assert set(made[1].replace("\\", "").split()) == used
    for name in set(SERVICES) - {"secrets"}:
        for volume in SERVICES[name].get("volumes", []):
            assert isinstance(volume, str) or volume["volume"] == {"nocopy": True}, name


def test_no_secret_is_in_an_environment() -> None:
    secret = {"redis_url", "s3_access_key_id", "s3_secret_access_key"}
    names = {name for service in SERVICES.values() for name in service.get("environment", {})}
    assert names.isdisjoint({f"PAIRFORGE_{field.upper()}" for field in secret})
    assert {name for name in names if re.search("PASSWORD|SECRET|TOKEN|KEY", name)} == {
        "PAIRFORGE_SECRETS_DIR",
        "GF_SECURITY_ADMIN_PASSWORD__FILE",
    }


def test_every_setting_is_one() -> None:
    known = {f"PAIRFORGE_{field.upper()}" for field in Settings.model_fields} | {"PAIRFORGE_SECRETS_DIR"}
    for name in ("api", "worker", "worker-gpu"):
        given = {variable for variable in SERVICES[name]["environment"] if variable.startswith("PAIRFORGE_")}
        assert given <= known, name


def test_the_api_asks_for_keys() -> None:
    assert Settings.model_fields["require_keys"].default is True
    assert "PAIRFORGE_REQUIRE_KEYS" not in SERVICES["api"]["environment"]


def test_a_worker_for_the_processor_runs_unless_one_for_gpus_is_asked_for() -> None:
    profiles = {name: service["profiles"] for name, service in SERVICES.items() if "profiles" in service}
    assert profiles == {name: ["gpu"] for name in ("worker-gpu", "fetch-base", "dcgm-exporter")}
    assert SERVICES["worker"]["deploy"]["replicas"] == "${PAIRFORGE_CPU_WORKERS:-1}"
    given = re.findall(r"^(\w+)=(.*)$", (ROOT / "deploy/compose/gpu.env").read_text(), re.MULTILINE)
    assert dict(given) == {"COMPOSE_PROFILES": "gpu", "PAIRFORGE_GPUS": "1", "PAIRFORGE_CPU_WORKERS": "0"}


def test_the_operators_own_settings_are_no_business_of_git() -> None:
    ignored = subprocess.run(["git", "check-ignore", ".env"], cwd=ROOT, capture_output=True, text=True, check=False)
    if ignored.returncode == 128:
        pytest.skip("no repository of Git")
    assert ignored.stdout == ".env\n"
    tracked = subprocess.run(["git", "ls-files", ".env"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert tracked.stdout == ""


def test_line_ends_are_those_of_linux_on_whatever_machine() -> None:
    files = ["deploy/compose/s3.sh", "deploy/compose/make_secrets.py", "docker-compose.yml", "docs/demo.png"]
    command = ["git", "check-attr", "text", "eol", "--", *files]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if run.returncode == 128:
        pytest.skip("no repository of Git")
    told = dict(line.rsplit(": ", 1) for line in run.stdout.splitlines())
    assert {told[f"{file}: eol"] for file in files[:-1]} == {"lf"}
    assert told["docs/demo.png: text"] == "unset"


def test_nothing_of_the_repository_is_mounted_since_its_rights_are_whatever_the_clone_made_them() -> None:
    sources = {source for name in SERVICES for source in volumes_of(name)}
    assert sources == set(COMPOSE["volumes"])
    assert "configs" not in COMPOSE  # which no container with a read-only root can be given


@pytest.mark.parametrize("file", [*DOCKERFILES, SERVERS])
def test_what_an_image_takes_from_the_repository_may_be_read_by_anybody(file: str) -> None:
    taken = copied(file)
    assert taken
    assert {options for options, _, _ in taken} == {"--chmod=0755"}
    assert [source for _, source, _ in taken if not (ROOT / source).exists()] == []


def test_what_services_run_and_read_is_in_their_images() -> None:
    targets = {target for file in (*DOCKERFILES, SERVERS) for _, _, target in copied(file)}
    run = {
        word
        for service in SERVICES.values()
        for key in ("entrypoint", "command")
        for word in (service.get(key) or [])
        if str(word).startswith("/opt/")
    }
    assert run == {"/opt/make_secrets.py", "/opt/s3.sh", "/opt/fetch_base.sh", "/opt/dcgm-counters.csv"}
    assert run < targets
    assert targets - run == {"/etc/prometheus", "/etc/grafana/provisioning", "/etc/grafana/dashboards"}


def test_compiled_code_is_kept_where_it_may_be_run() -> None:
    worker = SERVICES["worker-gpu"]
    kept = [worker["environment"][name] for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")]
    writable = [v["target"] for v in worker["volumes"] if not v.get("read_only")]
    memory = [entry.partition(":")[0] for entry in worker["tmpfs"]]
    assert all(any(Path(folder).is_relative_to(place) for place in writable) for folder in kept)
    assert not any(Path(folder).is_relative_to(place) for folder in kept for place in memory)
    image = (ROOT / "Dockerfile.gpu").read_text()
    assert f"TORCHINDUCTOR_CACHE_DIR={kept[0]} TRITON_CACHE_DIR={kept[1]}" in image


def test_the_api_has_the_memory_for_all_that_it_decodes_at_a_time() -> None:
    decoding = MAX_INSPECTIONS * memory_of(limits_of(Settings())) // 2**10
    in_memory = sum(kibibytes(re.findall(r"size=(\w+)", entry)[0]) for entry in SERVICES["api"]["tmpfs"])
    server = kibibytes("256m")
    assert decoding + in_memory + server <= kibibytes(SERVICES["api"]["mem_limit"])


def test_each_worker_is_built_with_the_torch_of_its_device() -> None:
    indices = {name: SERVICES[name]["build"]["args"]["TORCH_INDEX"] for name in ("worker", "worker-gpu", "fetch-base")}
    assert indices["worker"] == "${PAIRFORGE_TORCH_INDEX:-https://download.pytorch.org/whl/cpu}"
    assert indices["worker-gpu"] == indices["fetch-base"] == "${PAIRFORGE_CUDA_INDEX:-https://pypi.org/simple}"


def test_the_gpu_exporter_exports_what_is_asked_for_and_nothing_that_needs_root() -> None:
    shown = [*(ROOT / "deploy/grafana/dashboards").glob("*.json"), *(ROOT / "deploy/prometheus/rules").glob("*.yml")]
    asked_for = {field for file in shown for field in re.findall(r"\bDCGM_\w+", file.read_text())}
    counters = (ROOT / "deploy/compose/dcgm-counters.csv").read_text().splitlines()
    rows = list(csv.reader(line for line in counters if not line.startswith("#")))
    assert {row[0] for row in rows} == asked_for
    assert all(len(row) == 3 and row[1].strip() == "gauge" for row in rows)
    assert not any(field.startswith("DCGM_FI_PROF_") for field in asked_for)
    exporter = SERVICES["dcgm-exporter"]
    program, option, file = exporter["entrypoint"]
    assert (program, option) == ("dcgm-exporter", "-f")
    assert ("deploy/compose/dcgm-counters.csv", file) in [each[1:] for each in copied(SERVERS)]


def test_prometheus_looks_for_what_there_is() -> None:
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    looked_up = {
        name for job in config["scrape_configs"] for dns in job.get("dns_sd_configs", []) for name in dns["names"]
    }
    assert looked_up == {"api", "worker", "worker-gpu", "celery-exporter", "dcgm-exporter"}
    assert looked_up < set(SERVICES)


def fetching(tmp_path: Path, **environment: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """`fetch_base.sh` with a hub and a library that only note how they were called, and with /models in a folder."""
    programs, noted = tmp_path / "bin", tmp_path / "noted"
    programs.mkdir(exist_ok=True)
    for name in ("hf", "pairforge"):
        (programs / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {noted}\n')
        (programs / name).chmod(0o755)
    script = tmp_path / "fetch_base.sh"
    script.write_text((ROOT / "deploy/compose/fetch_base.sh").read_text().replace("/models", str(tmp_path / "models")))
    (tmp_path / "models" / "stable-diffusion-v1-5-451f4fe16113").mkdir(parents=True, exist_ok=True)
    path = f"{programs}:{os.environ['PATH']}"
    run = subprocess.run(
        ["sh", str(script)], env={"PATH": path, **environment}, capture_output=True, text=True, check=True
    )
    return run, noted.read_text().splitlines() if noted.exists() else []


def test_the_base_is_fetched_once_at_one_revision_and_its_licence_is_named(tmp_path: Path) -> None:
    run, calls = fetching(tmp_path)
    assert [call.split()[:2] for call in calls] == [["hf", "download"], ["pairforge", "bases"]]
    (revision,) = re.findall(r"--revision=([0-9a-f]{40}) ", calls[0])
    assert "CreativeML OpenRAIL-M" in run.stdout
    (base,) = (tmp_path / "models").iterdir()
    assert json.loads((base / "card.json").read_text()) == {"license": "CreativeML-OpenRAIL-M", "revision": revision}
    assert fetching(tmp_path)[1] == calls  # nothing new
    for name in ("worker-gpu", "fetch-base"):
        told = SERVICES[name]["environment"]["PAIRFORGE_BASE"]
        assert told == f"${{PAIRFORGE_BASE:-/models/stable-diffusion-v1-5-{revision[:12]}}}"


def test_a_base_of_the_operators_own_is_looked_at_and_not_fetched(tmp_path: Path) -> None:
    _, calls = fetching(tmp_path, PAIRFORGE_BASE="/models/own")
    assert calls == ["pairforge bases verify /models/own"]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_is_made_of_pinned_versions_and_is_not_root(name: str) -> None:
    text = (ROOT / name).read_text()
    assert re.findall(r"^FROM (.*?)(?: AS .*)?$", text, re.MULTILINE) == ["${PYTHON_IMAGE}"] * 2
    assert re.search(r"^ARG PYTHON_IMAGE=\S+:\d+\.\d+\.\d+-\S+$", text, re.MULTILINE)
    installs = [line for line in text.splitlines() if "pip install" in line and "--no-deps" not in line]
    assert installs
    assert all("-c constraints.txt" in line for line in installs)
    # Dependencies stay in their layer while the code changes.
    assert text.index("constraints.txt") < text.index("pip install") < text.index("COPY service")
    assert re.findall(r"^USER (.*)$", text, re.MULTILINE) == [USER]


def test_images_are_made_of_what_they_may_hold() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    let_in = {line[1:].rstrip("/") for line in lines if line.startswith("!")}
    taken: set[str] = set()
    for name in (*DOCKERFILES, SERVERS):
        for line in re.findall(r"^COPY (?!--from)(?:--\S+ )*(.*)$", (ROOT / name).read_text(), re.MULTILINE):
            taken |= set(line.split()[:-1])
    assert {"deploy/compose" if each.startswith("deploy/compose/") else each for each in taken} == let_in


def requirements_of(name: str, extra: str) -> list[Requirement]:
    if name == "pairforge":  # as it is written, whatever was installed
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        return [Requirement(text) for text in project["dependencies"] + project["optional-dependencies"][extra]]
    asked = [Requirement(text) for text in requires(name) or []]
    return [needed for needed in asked if needed.marker is None or needed.marker.evaluate({"extra": extra})]


def dependencies(requirement: Requirement, seen: set[tuple[str, str]]) -> Iterator[str]:
    """Names of the distributions that a requirement brings along."""
    name = canonicalize_name(requirement.name)
    for extra in requirement.extras or {""}:
        if (name, extra) not in seen:
            seen.add((name, extra))
            yield name
            for needed in requirements_of(name, extra):
                yield from dependencies(needed, seen)


def test_the_api_runs_on_its_requirements_alone() -> None:
    blocked = ("torch", "diffusers", "transformers", "peft", "model", "worker")
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked}))\n"
    code += "import service.main, service.cli.keys, service.cli.session, service.core.api_keys\n"
    code += "service.main.create_app(); print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in run.stdout.split()}
    # What libraries import where it happens to be installed is no requirement.
    ours = {name.partition(".")[0] for file in sources("service") for _, name in imports_of(file)}
    distributions = packages_distributions()
    asked_for = {module: distributions[module] for module in ours & loaded if module in distributions}
    assert {"boto3", "celery", "fastapi", "redis", "rich", "typer"} <= set(asked_for)
    brought = set(dependencies(Requirement("pairforge[service]"), set()))
    missing = [module for module, of in asked_for.items() if brought.isdisjoint(map(canonicalize_name, of))]
    assert set(missing) <= {"service"}
