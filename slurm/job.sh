# shellcheck shell=bash
# How a job starts on its nodes, leaves when it is told to, and comes back. The batch scripts read this file.
# They set MMTRAIN, the checkout, before. What trains comes back, by these:
: "${MAX_RESTARTS:=50}"   # of one job, whatever the reason
: "${PREFLIGHT:=yes}"     # no: start without a look at the nodes
: "${LEAVE_SECONDS:=60}"  # that nodes have once the first of them has ended; then they are ended
. "$MMTRAIN/slurm/env.sh"
restart=${SLURM_RESTART_COUNT:-0}  # Slurm leaves it unset the first time
leaving=                           # why, once somebody has asked the job to leave

dry_run() {  # SCRIPT: pretend to be a job of the nodes that the script asks for
    DRY_RUN=yes SLURM_JOB_ID=0 SLURM_NODEID=0 SLURMD_NODENAME=node1
    SLURM_NNODES=$(sed -n 's/^#SBATCH.*--nodes=\([0-9]*\).*/\1/p' "$1")
    SLURM_CPUS_PER_TASK=$(sed -n 's/^#SBATCH.*--cpus-per-task=\([0-9]*\).*/\1/p' "$1")
    JOB_NODES=$(seq --separator=, --format='node%g' "$SLURM_NNODES")
    export DRY_RUN SLURM_NNODES SLURM_NODEID SLURMD_NODENAME
}

meet() {  # name the nodes, and the place where they meet
    [ -n "${DRY_RUN:-}" ] || JOB_NODES=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | paste --serial --delimiters=,)
    first_node=${JOB_NODES%%,*}
    RENDEZVOUS_HOST=$first_node$RENDEZVOUS_SUFFIX
    : "${RENDEZVOUS_PORT:=$((20000 + (SLURM_JOB_ID * 16 + restart * 2) % 10000))}"  # below the ports of clients
    # What the nodes of this job sign by when they meet; in the environment only its owner reads it.
    : "${PREFLIGHT_SECRET:=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')}"
    export MMTRAIN JOB_NODES RENDEZVOUS_HOST RENDEZVOUS_PORT PREFLIGHT_SECRET
}

on_nodes() {  # srun options, --, what node.sh is to do: one task on each node
    local options=(--input=none --export=ALL --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}")
    [ "$CONTAINER" != pyxis ] || options+=(--container-image="$IMAGE" ${MOUNTS:+--container-mounts="$MOUNTS"})
    while [ "$1" != -- ]; do options+=("$1"); shift; done
    shift
    if [ -z "${DRY_RUN:-}" ]; then exec srun "${options[@]}" bash "$MMTRAIN/slurm/node.sh" "$@"; fi
    printf '%q ' srun "${options[@]}" bash "$MMTRAIN/slurm/node.sh" "$@"
    printf '\n    on %s: ' "$first_node"
    bash "$MMTRAIN/slurm/node.sh" "$@"
}

ask() {  # what a program says on the first node
    if [ -n "${DRY_RUN:-}" ]; then "$@"; else on_nodes --nodes=1 --ntasks=1 --nodelist="$first_node" -- run "$@"; fi
}

ask_to_leave() {  # WHY: the ranks save and end; node.sh hands the signal on
    leaving=$1
    echo "job $SLURM_JOB_ID: $leaving; the run is asked to save" >&2
    scancel --signal=USR2 "$SLURM_JOB_ID" || true  # nothing may be running yet
}

wait_for() {  # PROCESS: its exit code, however many signals come in between
    local code=0
    wait "$1" || code=$?
    while kill -0 "$1" 2>/dev/null; do code=0; wait "$1" || code=$?; done
    return "$code"
}

note() {  # a line of the run folder's restarts.log, which this job's log shows as well
    echo "$(date -u +%FT%TZ) job $SLURM_JOB_ID attempt $restart: $*" | tee -a "$RUN_DIR/restarts.log"
}

status() {  # KEY: what the run wrote down of how it stands
    sed -nE "s/^ *\"$1\": \"?(.*[^\",])\"?,?\$/\1/p" "$RUN_DIR/status.json" 2>/dev/null || true
}

commit() {  # of the code that runs, here or as an image recorded it
    local found
    if found=$(git -C "$MMTRAIN" rev-parse HEAD 2>/dev/null); then
        [ -z "$(git -C "$MMTRAIN" status --porcelain)" ] || found+=" with changes"
    else
        found=$(cat "$MMTRAIN/COMMIT" 2>/dev/null || echo "${MMTRAIN_COMMIT:-unknown}")
    fi
    echo "$found"
}

open_log() {  # say in the run folder that this attempt starts, after what, and with which code
    local last code
    mkdir -p "$RUN_DIR"
    last=$(tail -n 1 "$RUN_DIR/restarts.log" 2>/dev/null || true)
    [[ $last != *" starts on "* ]] || note "the attempt before ended without a word: a node was lost, its processes" \
        "were killed, or the job was requeued from outside (the run was $(status state) at step $(status step))"
    [ "$restart" -le "$MAX_RESTARTS" ] || { note "not started: MAX_RESTARTS=$MAX_RESTARTS is reached"; exit 1; }
    code=$(commit)
    echo "$code" >"$RUN_DIR/commit.txt"
    [[ $code != *" with changes" ]] || git -C "$MMTRAIN" diff HEAD >"$RUN_DIR/commit.diff"
    note "starts on $JOB_NODES, commit $code"
}

requeue() {  # WHY [BAD NODES, by commas]: run again, without those nodes, unless that was done often enough
    local state excluded
    state=$(scontrol show job "$SLURM_JOB_ID" | sed -n 's/^ *JobState=\([A-Z_]*\).*/\1/p')
    [ "$state" = RUNNING ] || { note "$1; the job is $state already"; exit 0; }
    [ "$restart" -lt "$MAX_RESTARTS" ] || { note "$1; not requeued: MAX_RESTARTS=$MAX_RESTARTS is reached"; exit 1; }
    note "$1; requeued${2:+ without $2}"
    excluded=$(scontrol show job "$SLURM_JOB_ID" | sed -n 's/.*ExcNodeList=\([^ ]*\).*/\1/p')
    [ "$excluded" != "(null)" ] || excluded=
    trap '' TERM  # Slurm ends this script once the job is queued, and only then can nodes be excluded
    scontrol requeue "$SLURM_JOB_ID"
    [ -z "${2:-}" ] || scontrol update JobId="$SLURM_JOB_ID" ExcNodeList="${excluded:+$excluded,}$2"
    exit 0
}

exclude_bad() {  # WHAT THE PREFLIGHT SAID: requeue without the nodes that it names; the first one, if it could not say
    local bad line
    bad=$(sed -n 's/^bad node \([^:]*\):.*/\1/p' <<<"$1" | paste --serial --delimiters=,)
    [ -n "$bad" ] || note "bad node $first_node: it gave no verdict on the others"
    while read -r line; do note "$line"; done < <(grep '^bad node ' <<<"$1")
    requeue "the preflight failed" "${bad:-$first_node}"
}

train() {  # MODULE CONFIG KEY=VALUE...: check the run and the nodes, train, and end the job as the run says
    local module=$1 config=${2:?a config is wanted: sbatch slurm/${script##*/} CONFIG key=value ...} world found fit before code
    shift 2
    meet
    world=$((SLURM_NNODES * RANKS_PER_NODE))
    trap 'ask_to_leave "the time limit or a preemption is near"' USR1
    trap 'ask_to_leave "the job was told to end"' TERM

    # A wrong config ends the job here, before anything is written.
    RUN_DIR=$(ask python -m mmtrain.preflight run --config "$config" --world "$world" "$@") || exit $?
    [ -n "${DRY_RUN:-}" ] || open_log

    if [ "$PREFLIGHT" = yes ]; then
        found=$(on_nodes -- preflight "$RUN_DIR") && fit=yes || fit=
        echo "$found"
        [ -n "$fit" ] || [ -n "$leaving" ] || exclude_bad "$found"
    fi
    [ -z "$leaving" ] || requeue "$leaving"

    before=$(status attempt)
    on_nodes --kill-on-bad-exit=0 --wait="$LEAVE_SECONDS" -- launch "$module" --config "$config" "$@" &
    wait_for $! && code=0 || code=$?
    [ -n "${DRY_RUN:-}" ] || settle "$code" "$before"
}

settle() {  # EXIT CODE, ATTEMPT OF THE STATUS BEFORE: end the job as the run says that it ended
    local state where again
    state=$(status state) where="at step $(status step) of $(status num_steps)"
    [ "$(status attempt)" != "$2" ] || { note "refused, exit code $1; not requeued"; exit $(($1 ? $1 : 1)); }
    [ "$state" != completed ] || { note "completed $where"; exit 0; }
    [ "$state" != running ] || state="cut off (exit code $1)"
    state="$state $where: $(status reason)"
    [ "$(status can_resume)" = true ] || { note "$state; it would fail again, so it is not requeued"; exit 1; }
    # What ends a run at one step again and again is no accident.
    again=$(grep -c " job $SLURM_JOB_ID .* $where: " "$RUN_DIR/restarts.log" || true)
    if [ "$(status state)" != preempted ] && [ "$again" -ge 2 ]; then
        note "$state; not requeued, as it ended $where twice before"; exit 1
    fi
    requeue "$state${leaving:+ ($leaving)}"
}
