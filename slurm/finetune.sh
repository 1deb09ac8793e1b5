#!/bin/bash
# Train a pretrained run or export for one task. Told to leave, or cut off, it saves, requeues itself and goes on.
#   sbatch slurm/finetune.sh configs/finetune/vqa.yaml model.init_from=runs/base run_dir=runs/vqa key=value ...
#   sbatch --nodes=4 --time=12:00:00 slurm/finetune.sh ...            what sbatch is told wins over the lines below
#   bash slurm/finetune.sh --dry-run configs/finetune/vqa.yaml ...    only say what would be run
#SBATCH --job-name=finetune
#SBATCH --nodes=1 --ntasks-per-node=1 --gpus-per-node=8 --cpus-per-task=64 --mem=0 --exclusive
#SBATCH --time=8:00:00
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
train mmtrain.finetune "$@"
