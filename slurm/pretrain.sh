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

script=${BASH_SOURCE[0]}  # for sbatch a copy in a spool folder: Slurm knows the original
[ -e "${script%/*}/job.sh" ] ||
    script=$(scontrol show job "$SLURM_JOB_ID" | sed -n '0,/^ *Command=/s/^ *Command=\([^ ]*\).*/\1/p')
MMTRAIN=$(cd "$(dirname "$script")/.." && pwd)
. "$MMTRAIN/slurm/job.sh"
[ "${1:-}" != --dry-run ] || { dry_run "$script"; shift; }
train mmtrain.pretrain "$@"
