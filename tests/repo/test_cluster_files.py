"""The files of cluster/ are what their readers take: Kubernetes' schemas, Ray Serve's, bash; and none of them switches a lock off."""

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from reid_ray.config import load_config
from reid_ray.serve.config import ServeJob

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "cluster"
MANIFESTS = sorted((CLUSTER / "kuberay").glob("*.yaml"))


def problems(schema: dict[str, Any], value: Any, where: str) -> list[str]:
    """What an OpenAPI v3 schema of Kubernetes says against a value; an unknown field too, which the API server would drop in silence."""
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float)}
    if schema.get("x-kubernetes-int-or-string"):
        return [] if isinstance(value, int | str) else [f"{where}: {value!r} is neither a number nor a text"]
    if (kind := schema.get("type")) in kinds and (not isinstance(value, kinds[kind]) or (isinstance(value, bool) and kind != "boolean")):
        return [f"{where}: {value!r} is no {kind}"]
    found = [] if value in schema.get("enum", [value]) else [f"{where}: {value!r} is none of {schema['enum']}"]
    if isinstance(value, dict):
        found += [f"{where}.{key}: required" for key in schema.get("required", []) if key not in value]
        known, others = schema.get("properties", {}), schema.get("additionalProperties")
        for key, item in value.items():
            if key in known or isinstance(others, dict):
                found += problems(known.get(key, others), item, f"{where}.{key}")
            elif not schema.get("x-kubernetes-preserve-unknown-fields") and others is not True and (known or others is False):
                found += [f"{where}.{key}: unknown"]
    if isinstance(value, list):
        found += [problem for number, item in enumerate(value) for problem in problems(schema.get("items", {}), item, f"{where}[{number}]")]
    return found


@pytest.mark.parametrize("path", MANIFESTS, ids=[path.name for path in MANIFESTS])
def test_a_manifest_is_what_kuberays_resource_definition_takes(path):
    folder = os.environ.get("KUBERAY_CRDS")
    if folder is None:
        pytest.skip("KUBERAY_CRDS does not name a folder with KubeRay's ray-operator/config/crd/bases")
    manifest = yaml.safe_load(path.read_text())
    definition = yaml.load((Path(folder) / f"ray.io_{manifest['kind'].lower()}s.yaml").read_text(), yaml.CSafeLoader)
    version = next(each for each in definition["spec"]["versions"] if each["name"] == manifest["apiVersion"].partition("/")[2])
    schema = version["schema"]["openAPIV3Schema"]
    assert problems(schema, manifest, manifest["kind"]) == []
    manifest["spec"]["rayVersoin"] = "2.60.0"
    assert problems(schema, manifest, manifest["kind"]) == [f"{manifest['kind']}.spec.rayVersoin: unknown"]


@pytest.mark.parametrize("path", MANIFESTS, ids=[path.name for path in MANIFESTS])
def test_a_manifest_asks_for_a_token_and_for_the_ray_that_is_installed(path):
    spec = yaml.safe_load(path.read_text())["spec"]
    cluster = spec.get("rayClusterSpec", spec)
    assert cluster["authOptions"] == {"mode": "token"}
    assert f"ray[data,serve,train]=={cluster['rayVersion']}" in (ROOT / "pyproject.toml").read_text()
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
        memory = {volume["name"]: volume["emptyDir"]["sizeLimit"] for volume in pod["volumes"] if "emptyDir" in volume}
        limit = pod["containers"][0]["resources"]["limits"]["memory"]
        assert int(memory["shm"].removesuffix("Gi")) <= 0.3 * int(limit.removesuffix("Gi")), "what is in /dev/shm counts as the container's"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray Serve's models, under today's pydantic
def test_the_serve_file_is_one_of_ray_serves_and_its_arguments_are_fields_of_the_job():
    written = yaml.safe_load((CLUSTER / "serve.yaml").read_text())
    from ray.serve.schema import ServeDeploySchema

    application = ServeDeploySchema.model_validate(written).applications[0]
    module, name = application.import_path.split(":")
    assert callable(getattr(__import__(module, fromlist=[name]), name))
    config = load_config(ServeJob, None, ["runs_on=ray", *(f"{key}={json.dumps(value)}" for key, value in application.args.items())])
    assert config.access.tokens, "an address beyond this machine without a token"
    assert config.searcher.max_replicas == application.args["searcher"]["max_replicas"]


def stub(folder: Path, name: str, text: str) -> None:
    file = folder / name
    file.write_text(f"#!/usr/bin/env bash\n{text}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def allocation(tmp_path):
    """An allocation of two nodes in which srun runs its command here and says where; Ray and the Python that asks it are stand-ins."""
    programs = tmp_path / "bin"
    programs.mkdir()
    stub(programs, "scontrol", "printf 'node1\\nnode2\\n'")
    stub(programs, "srun", 'while [[ $1 == --* ]]; do [[ $1 != --nodelist=* ]] || node=${1#*=}; shift; done; NODE=$node exec "$@"')
    stub(programs, "hostname", "echo ${ADDRESS:-10.0.0.1} 10.1.0.1")
    stub(
        programs,
        "ray",
        f'[[ $NODE != "$BROKEN" ]] || exit 3; echo "$NODE $RAY_AUTH_MODE $RAY_AUTH_TOKEN $*" >> {tmp_path}/ray.log; exec sleep 600',
    )
    # The nodes that were told to start are the nodes that are alive.
    stub(
        programs,
        "python",
        f"""
case $1 in
  -c) if [[ $2 == *secrets* ]]; then exec {sys.executable} "$@"; fi ;;
  -) until [[ $(grep -cs '' {tmp_path}/ray.log) -ge $2 ]]; do sleep 0.05; done; ;;
esac""",
    )
    environment = {"PATH": f"{programs}:/usr/bin:/bin", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_CPUS_PER_TASK": "4"}
    return {**environment, "SLURM_JOB_ID": tmp_path.name, "BROKEN": "", "RAY_AUTH_MODE": "disabled"}


def sbatch(environment, *command):
    return subprocess.run(
        ["bash", CLUSTER / "slurm" / "ray.sbatch", *command], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.slow
def test_the_slurm_script_starts_the_head_then_the_nodes_with_one_token_and_runs_the_command_on_them(allocation, tmp_path):
    done = sbatch(allocation, "bash", "-c", 'echo "$RAY_ADDRESS $RAY_AUTH_MODE $RAY_AUTH_TOKEN $0 $1"; exit 7', "a b", "c")
    address, mode, token, *arguments = done.stdout.split()
    assert (done.returncode, address, mode, arguments) == (7, "10.0.0.1:6379", "token", ["a", "b", "c"])
    assert re.fullmatch("[0-9a-f]{64}", token)
    first, second = (tmp_path / "ray.log").read_text().splitlines()
    assert first.startswith(f"node1 token {token} start --head --node-ip-address=10.0.0.1 --port=6379")
    assert second.startswith(f"node2 token {token} start --address=10.0.0.1:6379")
    assert "--num-cpus=4" in first
    assert "--num-cpus=4" in second
    assert not Path(f"/tmp/ray-{tmp_path.name}").exists()
    again = sbatch(allocation, "bash", "-c", "echo $RAY_AUTH_TOKEN")
    assert again.stdout.strip() != token


@pytest.mark.parametrize("broken", ["node1", "node2"])
def test_a_node_whose_ray_does_not_start_ends_the_slurm_job_at_once(allocation, broken):
    done = sbatch({**allocation, "BROKEN": broken}, "echo", "ran")
    assert done.returncode == 1
    assert "ran" not in done.stdout
    assert "Ray ended on a node before the cluster was up" in done.stderr


def test_the_slurm_script_refuses_an_address_that_no_other_node_reaches_and_an_empty_command(allocation):
    loop = sbatch({**allocation, "ADDRESS": "127.0.1.1"}, "echo", "ran")
    assert (loop.returncode, loop.stdout) == (2, "")
    assert "RAY_HEAD_IP" in loop.stderr
    assert sbatch(allocation).returncode == 2


def test_the_grafana_dashboard_asks_for_metrics_that_a_caption_run_counts_by_tags_that_they_have():
    dashboard = json.loads((CLUSTER / "grafana" / "caption_run.json").read_text())
    code = (ROOT / "reid_ray" / "caption" / "live_metrics.py").read_text()
    metrics = {name: kind for kind, name in re.findall(r'metrics\.(\w+)\(\s*"(reid_ray_caption_\w+)"', code)}
    tags = {"stage", "captioner", *re.findall(r'"(outcome|kind|status|reason|on|of)"', code)}
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(asked) >= 8
    for expression in asked:
        for name in re.findall(r"ray_(reid_ray_caption_\w+)", expression):
            assert metrics[name.removesuffix("_total")] == ("Counter" if name.endswith("_total") else "Gauge"), name
        assert {tag for names in re.findall(r" by \(([^)]*)\)", expression) for tag in names.split(", ")} <= tags, expression
