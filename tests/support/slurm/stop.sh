#!/usr/bin/env bash
# Ends the cluster of start.sh: its jobs first, then its daemons, each by the id that it wrote itself.
set -uo pipefail
dir=${1:?usage: give the folder of the cluster}
[ -d "$dir/pid" ] || exit 0
dir=$(cd "$dir" && pwd)
export SLURM_CONF="$dir/slurm.conf"

alive() {  # ID NAME: that process runs, and no other that got its number since, and is no zombie nobody waits for
  [ -n "$1" ] && [[ $(cat "/proc/$1/comm" 2>/dev/null) = "$2"* ]] && ! grep -q '^State:.Z' "/proc/$1/status" 2>/dev/null
}
number() { local pid=""; [ -s "$1" ] && read -r pid <"$1"; echo "$pid"; }

if alive "$(number "$dir/pid/slurmctld")" slurmctld; then
  timeout 5 scancel --full --user="$(id -un)" 2>/dev/null
  for ((try = 0; try < 60; try++)); do
    [ -z "$(timeout 5 squeue -h -t running,completing,suspended 2>/dev/null)" ] && break; sleep 0.1
  done
fi

declare -A left=()
for file in "$dir"/pid/node*; do [ -e "$file" ] && left[$(number "$file")]=slurmd; done
pid=$(number "$dir/pid/slurmctld"); [ -n "$pid" ] && left[$pid]=slurmctld
signal=TERM
for ((try = 0; try < 150; try++)); do   # they take 2 to 5 s each, so all at once
  for pid in "${!left[@]}"; do alive "$pid" "${left[$pid]}" || unset "left[$pid]"; done
  ((${#left[@]})) || break
  ((try == 100)) && signal=KILL
  ((try == 0 || try == 100)) && kill -$signal "${!left[@]}" 2>/dev/null
  sleep 0.1
done
pid=$(number "$dir/munge/pid")
alive "$pid" munged && kill -TERM "$pid" 2>/dev/null

# What outlives its slurmd: step daemons, and processes of jobs that ignored SIGTERM when their batch shell was gone
# (proctrack/linuxproc loses them). Known by this cluster's configuration in their environment; a shell that only
# sourced DIR/env has no SLURMD_NODENAME.
for proc in /proc/[0-9]*; do
  environment=$(tr '\0' '\n' 2>/dev/null <"$proc/environ" ) || continue
  grep -qxF "SLURM_CONF=$SLURM_CONF" <<<"$environment" || continue
  [[ $(cat "$proc/comm" 2>/dev/null) = slurmstepd* ]] || grep -q '^SLURMD_NODENAME=' <<<"$environment" || continue
  echo "left over: $(tr '\0' ' ' <"$proc/cmdline" 2>/dev/null)(${proc#/proc/}), killed" >&2
  kill -KILL "${proc#/proc/}" 2>/dev/null
done
for ((try = 0; try < 50; try++)); do alive "$pid" munged || break; sleep 0.1; done
rm -rf "$dir/pid"
exit 0
