# shellcheck shell=bash
# The names of one site: every script here reads this file, on the batch host and on every node. Fit it to your cluster,
# or set the variables before `sbatch`: what is set already stays.

# What a node has. GPUS_PER_NODE=0 computes on CPUs, with RANKS_PER_NODE processes.
: "${GPUS_PER_NODE:=${SLURM_GPUS_ON_NODE:-8}}" "${RANKS_PER_NODE:=$GPUS_PER_NODE}"
: "${GPU_MEMORY_GIB:=0}"      # what each GPU must have at least: a node with less is left out
: "${FREE_GIB:=50}"           # free space that the run folder and the temporary folder must have
: "${SHM_GIB:=4}"             # free space that /dev/shm must have
: "${PATIENCE_SECONDS:=120}"  # that nodes wait for each other in each half of the pre-flight

# How ranks are started on a node: torchrun or deepspeed.
: "${LAUNCHER:=torchrun}"

# Bare metal (empty), apptainer, or pyxis (Slurm's plugin for enroot); MOUNTS as each of them writes it.
: "${CONTAINER:=}" "${IMAGE:=}" "${MOUNTS:=}"

# Where ranks meet: a name of the first node in the fast network, if its plain name is not; and a port (empty: by the job).
: "${RENDEZVOUS_SUFFIX:=}" "${RENDEZVOUS_PORT:=}"

# The fast network, where NCCL does not find it by itself.
# export NCCL_SOCKET_IFNAME=ib0 GLOO_SOCKET_IFNAME=ib0 NCCL_IB_HCA=mlx5

# Programs. Inside a container they are in the image.
if [ -z "$CONTAINER" ]; then
    # module load cuda/12.8 gcc/12
    # shellcheck source=/dev/null
    [ ! -e "$MMTRAIN/.venv/bin/activate" ] || . "$MMTRAIN/.venv/bin/activate"
fi
export PYTHONPATH="$MMTRAIN${PYTHONPATH:+:$PYTHONPATH}" OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" PYTHONUNBUFFERED=1
[ "$GPUS_PER_NODE" != 0 ] || export DS_ACCELERATOR=cpu
export PATIENCE_SECONDS GPU_MEMORY_GIB FREE_GIB SHM_GIB GPUS_PER_NODE RANKS_PER_NODE LAUNCHER CONTAINER IMAGE MOUNTS
