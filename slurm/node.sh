#!/bin/bash
# What the one task on each node does; the batch scripts start it with srun.
#   node.sh run PROGRAM WORD ...        a program, once
#   node.sh preflight RUN_DIR           is this node fit for the run, and does it add up with the others
#   node.sh launch MODULE WORD ...      a Python module as every rank of this node
# SIGUSR2 and SIGTERM are handed to the ranks, which save and end. The launchers between do not see them: torchrun and
# deepspeed would end the ranks after a grace of their own, however long the save takes.
set -euo pipefail
. "$MMTRAIN/slurm/env.sh"

set_launcher() {
    case $LAUNCHER in
    torchrun)
        command=(torchrun --nnodes "$SLURM_NNODES" --node-rank "$SLURM_NODEID" --nproc-per-node "$RANKS_PER_NODE"
            --master-addr "$RENDEZVOUS_HOST" --master-port "$RENDEZVOUS_PORT" --signals-to-handle SIGINT -m) ;;
    deepspeed)
        hosts=$(mktemp)
        trap 'rm -f "$hosts"' EXIT
        tr , '\n' <<<"$JOB_NODES" | sed "s/$/ slots=$RANKS_PER_NODE/" >"$hosts"
        command=(deepspeed --quiet --hostfile "$hosts" --no_ssh --node_rank "$SLURM_NODEID"
            --master_addr "$RENDEZVOUS_HOST" --master_port "$RENDEZVOUS_PORT" --module) ;;
    *) echo "LAUNCHER is $LAUNCHER; wanted torchrun or deepspeed (slurm/env.sh)" >&2; exit 2 ;;
    esac
}

ranks_below() {  # the uppermost processes below process $1 that were started as a rank; their readers are not among them
    local children child
    read -ra children < <(cat "/proc/$1/task"/*/children 2>/dev/null) || true
    for child in "${children[@]}"; do
        if grep -qzs '^RANK=' "/proc/$child/environ"; then echo "$child"; else ranks_below "$child"; fi
    done
}

listens() {  # whether process $1 has a handler for SIGUSR2
    local caught
    caught=$(sed -n 's/^SigCgt:.*\(....\)$/\1/p' "/proc/$1/status" 2>/dev/null)
    ((16#${caught:-0} >> 11 & 1))
}

what=$1; shift
command=()
case $what in
launch) set_launcher ;;
preflight)
    command=(python -m mmtrain.preflight node --node "$SLURMD_NODENAME" --nodes "$JOB_NODES" --folder)
    set -- "$1" --at "$RENDEZVOUS_HOST:$RENDEZVOUS_PORT" --ranks "$RANKS_PER_NODE" --gpus "$GPUS_PER_NODE" \
        --gpu-memory-gib "$GPU_MEMORY_GIB" --free-gib "$FREE_GIB" --shm-gib "$SHM_GIB" \
        --patience "$PATIENCE_SECONDS" ;;
esac
[ "$CONTAINER" != apptainer ] || command=(apptainer exec --nv ${MOUNTS:+--bind "$MOUNTS"} "$IMAGE" "${command[@]}")
[ -z "${DRY_RUN:-}" ] || { printf '%q ' "${command[@]}" "$@"; echo; exit 0; }
[ "$what" = launch ] || exec "${command[@]}" "$@"

asked=
trap 'asked=yes' USR2 TERM
(trap '' USR2 TERM; exec "${command[@]}" "$@") &
running=$!
code=0
wait "$running" || code=$?
[ -n "$asked" ] || exit "$code"
told=" "
while kill -0 "$running" 2>/dev/null; do  # once to each rank, as soon as it listens: it may only just have started
    for rank in $(ranks_below "$running"); do
        [[ $told != *" $rank "* ]] && listens "$rank" && kill -USR2 "$rank" && told+="$rank "
    done
    sleep 1 || true
done
wait "$running"
