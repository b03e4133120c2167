"""tools/launch: the script for Slurm does what it says, the manifest for Kubernetes holds together.

Slurm is not at hand: ``srun`` and ``scontrol`` are stand-ins that note how they were called.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml
from torch.distributed import run as torchrun

from fastssl.commands.train import read_command_line

LAUNCH = Path(__file__).parents[1] / "tools" / "launch"
SCRIPTS = sorted(LAUNCH.glob("*.sh"))

SRUN = """#!/bin/sh
printf '%s\\n' "$@" > "$NOTES/srun"
[ -z "$SAYS" ] || echo "{\\"code\\": $SAYS, \\"step\\": 1}" > "$RUN/exit.json"
exit "$ENDS"
"""
SCONTROL = """#!/bin/sh
case $1 in
    show) printf 'node7\\nnode9\\n' ;;
    requeue) echo "$2" > "$NOTES/requeued" ;;
esac
"""


@pytest.fixture
def submit(tmp_path):
    """Run a script as Slurm would on two machines, with stand-ins for its commands."""
    programs, folder = tmp_path / "bin", tmp_path / "run"
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        programs.mkdir(exist_ok=True)
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    folder.mkdir()

    def run(ends, says, *arguments):
        environment = {
            **os.environ,
            **{"PATH": f"{programs}:{os.environ['PATH']}", "NOTES": str(tmp_path)},
            **{"ENDS": str(ends), "SAYS": says, "RUN": str(folder), "DATA": "/shared/yfcc"},
            **{"SLURM_JOB_NODELIST": "node[7,9]", "SLURM_NNODES": "2", "SLURM_JOB_ID": "4711"},
            "SLURM_GPUS_ON_NODE": "8",
        }
        command = ["bash", LAUNCH / "slurm.sh", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    return run


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_good_bash(script):
    subprocess.run(["bash", "-n", script], check=True)
    assert os.access(script, os.X_OK)


@pytest.mark.parametrize(
    ("ends", "says", "code", "is_requeued"),
    [(0, "0", 0, False), (1, "75", 0, True), (1, "2", 1, False), (137, "", 137, False)],
)
def test_slurm_queues_a_job_again_that_has_saved(tmp_path, submit, ends, says, code, is_requeued):
    (tmp_path / "run" / "exit.json").write_text('{"code": 75}')  # of an earlier life
    done = submit(ends, says, "quickstart")
    assert done.returncode == code, done.stderr
    assert (tmp_path / "requeued").exists() == is_requeued
    if is_requeued:
        assert (tmp_path / "requeued").read_text() == "4711\n"


def test_slurm_without_a_recipe_is_refused(tmp_path, submit):
    done = submit(0, "0")
    assert done.returncode == 2
    assert done.stderr.startswith("error: usage: sbatch ")
    assert not (tmp_path / "srun").exists()


def check_command(words, **wanted):
    """Have torchrun and fastssl themselves read a command line."""
    start = words.index("torch.distributed.run")
    assert words[start - 2 : start] == ["python", "-m"]
    options = torchrun.parse_args(words[start + 1 :])
    assert {name: getattr(options, name) for name in wanted} == wanted
    assert (options.module, options.training_script) == (True, "fastssl")
    command, *arguments = options.training_script_args
    assert command == "train"
    return read_command_line(arguments)


def test_slurm_starts_what_torchrun_and_fastssl_take(tmp_path, submit):
    submit(0, "0", "goyal19_jigsaw_yfcc", "--data.order", "chunked")
    config = check_command(
        (tmp_path / "srun").read_text().splitlines(),
        nnodes="2",
        nproc_per_node="8",
        rdzv_endpoint="node7:29500",
        rdzv_id="4711",
        signals_to_handle="SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1",
    )
    assert (config.data.path, config.data.order) == (Path("/shared/yfcc"), "chunked")
    assert config.output_dir == tmp_path / "run"


def test_the_kubernetes_manifest_holds_together():
    service, job = yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text(encoding="ascii"))
    assert (service["apiVersion"], service["kind"]) == ("v1", "Service")
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    # Kubernetes labels a job's pods by its name, and numbers their host names.
    name, pod = job["metadata"]["name"], job["spec"]["template"]["spec"]
    assert service["spec"]["selector"] == {"job-name": name}
    assert service["spec"]["clusterIP"] == "None"
    assert pod["subdomain"] == service["metadata"]["name"]
    (port,) = service["spec"]["ports"]
    (container,) = pod["containers"]
    config = check_command(
        container["command"],
        nnodes=f"2:{job['spec']['parallelism']}",
        nproc_per_node=container["resources"]["limits"]["nvidia.com/gpu"],
        rdzv_endpoint=f"{name}-0.{pod['subdomain']}:{port['port']}",
    )
    assert job["spec"]["completionMode"] == "Indexed"
    assert job["spec"]["completions"] == job["spec"]["parallelism"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert set(mounts) == {volume["name"] for volume in pod["volumes"]}
    assert Path(mounts["data"]) in config.data.path.parents
    assert Path(mounts["runs"]) in config.output_dir.parents
    assert mounts["shared-memory"] == "/dev/shm"
    assert pod["terminationGracePeriodSeconds"] > 30  # which torchrun takes by itself
