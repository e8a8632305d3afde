#!/usr/bin/env bash
# One study as a Slurm job array of four tasks, from the folder of the project,
# with the binary built (cargo build --bin rate_sweep):
#
#   sbatch sims/cluster/slurm-array.sh sims/faithful.toml
#
# Another number of tasks: sbatch --array=1-16 ... What follows the study goes to
# `rate_sweep run`, such as --out /shared/results. Output and project must lie
# where every node sees them.
#SBATCH --job-name=rate_sweep
#SBATCH --array=1-4
#SBATCH --cpus-per-task=1
#SBATCH --requeue
#SBATCH --output=rate_sweep-%A_%a.log
set -euo pipefail
study=${1:?usage: sbatch slurm-array.sh STUDY [options of rate_sweep run]}
shift
binary=${RATE_SWEEP:-target/debug/rate_sweep}
# The array's variables say which part this task runs.
exec "$binary" run "$study" --jobs "${SLURM_CPUS_PER_TASK:-1}" "$@"
