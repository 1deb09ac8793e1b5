#!/bin/bash
# Score the newest checkpoint of a run on its held-out pairs, on any number of ranks.
#   sbatch slurm/evaluate.sh RUN_DIR key=value ...
#   sbatch --gpus-per-node=2 slurm/evaluate.sh runs/base parallel.tp=2
#   bash slurm/evaluate.sh --dry-run RUN_DIR ...    only say what would be run
#SBATCH --job-name=evaluate
#SBATCH --nodes=1 --ntasks-per-node=1 --gpus-per-node=8 --cpus-per-task=64 --mem=0 --exclusive
#SBATCH --time=2:00:00
#SBATCH --requeue
#SBATCH --open-mode=append --output=slurm-%x-%j.log
set -euo pipefail

script=${BASH_SOURCE[0]}  # for sbatch a copy in a spool folder: Slurm knows the original
[ -e "${script%/*}/job.sh" ] ||
    script=$(scontrol show job "$SLURM_JOB_ID" | sed -n '0,/^ *Command=/s/^ *Command=\([^ ]*\).*/\1/p')
MMTRAIN=$(cd "$(dirname "$script")/.." && pwd)
. "$MMTRAIN/slurm/job.sh"
[ "${1:-}" != --dry-run ] || { dry_run "$script"; shift; }
run_dir=${1:?a run folder is wanted: sbatch slurm/evaluate.sh RUN_DIR key=value ...}; shift
meet
on_nodes --kill-on-bad-exit=1 -- launch mmtrain.evaluate "$run_dir" "$@"
