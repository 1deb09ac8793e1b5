#!/bin/bash
# Pretrain on several nodes. Told to leave, or cut off, the run saves, requeues itself and goes on where it stood.
#   sbatch slurm/pretrain.sh configs/pretrain/base.yaml key=value ...
#   sbatch --nodes=16 --time=12:00:00 slurm/pretrain.sh ...            what sbatch is told wins over the lines below
#   bash slurm/pretrain.sh --dry-run configs/pretrain/base.yaml ...    only say what would be run
#SBATCH --job-name=pretrain
#SBATCH --nodes=2 --ntasks-per-node=1 --gpus-per-node=8 --cpus-per-task=64 --mem=0 --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@600  # seconds before the limit: time for a step and a save
#SBATCH --requeue
#SBATCH --open-mode=append --output=slurm-%x-%j.log
set -euo pipefail
: "${MAX_RESTARTS:=50}"   # of one job, whatever the reason
: "${PREFLIGHT:=yes}"     # no: start without a look at the nodes
: "${LEAVE_SECONDS:=60}"  # that nodes have once the first of them has ended; then they are ended

script=${BASH_SOURCE[0]}  # for sbatch a copy in a spool folder: Slurm knows the original
[ -e "${script%/*}/job.sh" ] || script=$(scontrol show job "$SLURM_JOB_ID" | sed -n 's/^ *Command=\([^ ]*\).*/\1/p')
MMTRAIN=$(cd "$(dirname "$script")/.." && pwd)
. "$MMTRAIN/slurm/job.sh"
[ "${1:-}" != --dry-run ] || { dry_run "$script"; shift; }
config=${1:?a config is wanted: sbatch slurm/pretrain.sh CONFIG key=value ...}; shift
meet
world=$((SLURM_NNODES * RANKS_PER_NODE))
trap 'ask_to_leave "the time limit or a preemption is near"' USR1
trap 'ask_to_leave "the job was told to end"' TERM

# A wrong config ends the job here, before anything is written.
RUN_DIR=$(ask python -m mmtrain.preflight run --config "$config" --world "$world" "$@")
[ -n "${DRY_RUN:-}" ] || open_log

if [ "$PREFLIGHT" = yes ]; then
    found=$(on_nodes -- preflight "$RUN_DIR") && fit=yes || fit=
    echo "$found"
    [ -n "$fit" ] || [ -n "$leaving" ] || exclude_bad "$found"
fi
[ -z "$leaving" ] || requeue "$leaving"

before=$(status attempt)
on_nodes --kill-on-bad-exit=0 --wait="$LEAVE_SECONDS" -- launch mmtrain.pretrain --config "$config" "$@" &
wait_for $! && code=0 || code=$?
[ -n "${DRY_RUN:-}" ] || settle "$code" "$before"
