#!/bin/bash
# Build shards of images and captions: each task of a job array prepares a part, and a last job packs all parts.
#   sbatch --array=0-15 slurm/build_shards.sh PAIRS.csv SHARDS --resize 256 ...    words as of `mmdata build`
#   bash slurm/build_shards.sh --dry-run PAIRS.csv SHARDS ...                      only say what would be run
# A task that is killed goes on where it stood when it is requeued, or when the same line is submitted again.
#SBATCH --job-name=build
#SBATCH --array=0-7
#SBATCH --nodes=1 --ntasks=1 --cpus-per-task=16
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append --output=slurm-%x-%A-%a.log
set -euo pipefail

script=${BASH_SOURCE[0]}  # for sbatch a copy in a spool folder: Slurm knows the original
[ -e "${script%/*}/job.sh" ] ||
    script=$(scontrol show job "$SLURM_JOB_ID" | sed -n '0,/^ *Command=/s/^ *Command=\([^ ]*\).*/\1/p')
MMTRAIN=$(cd "$(dirname "$script")/.." && pwd)
GPUS_PER_NODE=0 RANKS_PER_NODE=1
. "$MMTRAIN/slurm/job.sh"
[ "${1:-}" != --dry-run ] || { dry_run "$script"; shift; }
: "${2:?an input and a folder are wanted: sbatch slurm/build_shards.sh INPUT SHARDS ...}"
meet
processes=(--processes "${SLURM_CPUS_PER_TASK:-1}")
if [ "$1" = --merge ]; then
    on_nodes -- run python -m data_tools merge "$2" "${processes[@]}"
fi
first=${SLURM_ARRAY_TASK_MIN:-0} count=${SLURM_ARRAY_TASK_COUNT:-8} task=${SLURM_ARRAY_TASK_ID:-0}
pack=(sbatch --dependency="afterok:${SLURM_ARRAY_JOB_ID:-JOB}" --kill-on-invalid-dep=yes --array=0 --job-name=merge
    "$script" --merge "$2")
if [ -n "${DRY_RUN:-}" ]; then
    printf '%q ' "${pack[@]}"; echo
elif [ "$task" = "$first" ] && [ "$restart" = 0 ]; then
    "${pack[@]}"
fi
on_nodes -- run python -m data_tools build "$@" --part "$((task - first))/$count" "${processes[@]}"
