#!/usr/bin/env bash
# A run on several machines under Slurm: saved and queued again when its time is nearly up.
#
#   sbatch --export=ALL,DATA=/shared/yfcc,RUN=/shared/runs/jigsaw tools/launch/slurm.sh goyal19_jigsaw_yfcc [OPTION ...]
#
# Slurm sends USR1 to the job's steps three minutes before the limit, TERM when the job is preempted.
# torchrun hands them on; all ranks save on the same step, and RUN/exit.json says 75: the job is queued
# again under its own number and goes on. Any other end but 0 is the job's own failure.
# DATA and RUN lie on a file system that all machines share. docs/scaling.md tells more.
#
#SBATCH --job-name=fastssl
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@180
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

if [[ $# -lt 1 || -z ${DATA:-} || -z ${RUN:-} ]]; then
    echo "error: usage: sbatch --export=ALL,DATA=DATASET,RUN=FOLDER $0 RECIPE [OPTION ...]" >&2
    exit 2
fi

head_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# An ending that an earlier life left would say nothing of this one.
rm -f "$RUN/exit.json"
# Without it whoever joins again after a restart never learns where rank 0 is (torch 2.14).
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1

# This shell is none of the job's steps, so the signals pass it by. When one machine's agent has ended
# the others have two minutes: rank 0 may still be saving.
status=0
srun --kill-on-bad-exit=0 --wait=120 python -m torch.distributed.run \
    --nnodes "$SLURM_NNODES" \
    --nproc-per-node "${SLURM_GPUS_ON_NODE:-1}" \
    --max-restarts 3 \
    --rdzv-backend c10d \
    --rdzv-endpoint "$head_node:${RDZV_PORT:-29500}" \
    --rdzv-id "$SLURM_JOB_ID" \
    --signals-to-handle SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 \
    -m fastssl train "$@" --data.path "$DATA" --output-dir "$RUN" || status=$?

# torchrun turns every code but 0 into 1; the true one stands in the run's directory.
if grep -qs '"code": 75' "$RUN/exit.json"; then
    echo "saved; queued again as job $SLURM_JOB_ID"
    exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
