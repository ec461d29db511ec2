#!/bin/bash
#SBATCH --job-name=rankwise
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=1
#SBATCH --time=00:10:00
# sbatch hostfiles/slurm.sh: no hostfile, for Slurm knows the nodes and starts the ranks.
#
# pmix is the interface through which ranks of Open MPI find each other (srun --mpi=list shows
# what a cluster has; MPICH takes pmi2). Threads inside a rank follow --cpus-per-task. With
# --kill-on-bad-exit a rank that fails ends the job, as it does under mpirun.
set -euo pipefail

threads=${SLURM_CPUS_PER_TASK:-1}
srun --mpi=pmix --kill-on-bad-exit=1 rankwise selftest --quick --threads "$threads"
srun --mpi=pmix --kill-on-bad-exit=1 rankwise pagerank "${1:-demo/packages.txt}" \
  --threads "$threads" --output ranks.csv
