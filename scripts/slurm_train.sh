#!/bin/bash
# Train with SLURM on any number of nodes, through time limits and preemption (docs/how-to/slurm.md).
#
#   sbatch scripts/slurm_train.sh edm-cifar10 --out runs/edm-cifar10
#   sbatch --nodes=4 scripts/slurm_train.sh edm-cifar10 train.batch=2048 --out runs/wide
#
# The words after the script are those of `sfumato train`. Set the lines below to your cluster, and PYTHON if the
# environment is not active when jobs start.
#SBATCH --job-name=sfumato
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8     # one process a GPU
#SBATCH --gpus-per-node=8       # all GPUs of a node are seen by all its processes; each takes its own
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@180       # three minutes before the limit, to the processes: save and leave
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=sfumato-%j.log
set -u

MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000)) OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
export PYTHON=${PYTHON:-python}

# A process that dies ends the others by itself; told to kill them, SLURM would hide the exit code that matters here.
srun --kill-on-bad-exit=0 --wait=0 bash -c '
    export RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS LOCAL_RANK=$SLURM_LOCALID
    exec "$PYTHON" -m sfumato train "$@"' sfumato "$@"
code=$?

if [ "$code" -eq 138 ]; then    # 128 + SIGUSR1: the time limit is near and everything is saved
    echo "Saved at the time limit; queued again."
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"                    # 143 after SIGTERM: SLURM itself requeues what it has preempted
