"""The container files: what they say fits together and fits the service. (Building an image needs a container engine: not here.)"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgeinfer.sizes import parse_size

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "container"
MANIFESTS = ("k3s.yaml", "kserve.yaml")


def documents(name: str) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all((FOLDER / name).read_text()) if document]


def pods() -> list[tuple[str, dict[str, Any], list[dict[str, Any]]]]:
    found = []
    for name in MANIFESTS:
        all_of_it = documents(name)
        for document in all_of_it:
            spec = document.get("spec", {})
            spec = spec.get("template", {}).get("spec", spec)
            if "containers" in spec:
                found.append((name, spec, all_of_it))
    return found


def test_every_document_has_a_kind_a_name_and_the_namespace() -> None:
    for name in MANIFESTS:
        for document in documents(name):
            assert {"apiVersion", "kind", "metadata"} <= set(document)
            assert document["metadata"]["namespace"] == "edge" and re.fullmatch(r"[a-z0-9-]{1,63}", document["metadata"]["name"])


@pytest.mark.parametrize(("name", "spec", "others"), pods(), ids=MANIFESTS)
def test_pods(name: str, spec: dict[str, Any], others: list[dict[str, Any]]) -> None:
    (container,) = spec["containers"]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    (settings,) = [document for document in others if document["kind"] == "ConfigMap"]
    assert volumes["configuration"]["configMap"]["name"] == settings["metadata"]["name"]
    config = yaml.safe_load(settings["data"]["serve.yaml"])
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert str(Path(config["token_file"]).parent) in mounts  # other machines reach it: a token is required
    assert int(config["listen"].rpartition(":")[2]) == container["ports"][0]["containerPort"]
    limit = container["resources"]["limits"]["memory"]
    assert parse_size(limit.replace("Mi", "MiB")) > parse_size(config["memory_limit"])  # the fence is behind the ceiling
    assert container["securityContext"]["readOnlyRootFilesystem"] and container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize(
    "text",
    [(FOLDER / "serve.yaml").read_text(), *(d["data"]["serve.yaml"] for n in MANIFESTS for d in documents(n) if d["kind"] == "ConfigMap")],
)
def test_configurations_are_the_service_s(text: str) -> None:
    config = pytest.importorskip("edgeinfer.serve.config")
    parsed = config.parse(yaml.safe_load(text))
    assert parsed.memory_limit == 96 << 20 and parsed.token_file.endswith("/token")


def test_containerfile_copies_what_is_there_and_runs_a_command_that_is_there() -> None:
    text = (FOLDER / "Containerfile").read_text()
    for source in re.findall(r"^COPY (?!--from)(\S+)", text, re.MULTILINE):
        assert (FOLDER.parents[1] / source).exists()
    assert re.search(r"^USER \d+", text, re.MULTILINE) and 'CMD ["serve", "--config", "/etc/edgeinfer/serve.yaml"]' in text
