#!/usr/bin/env bash
# A node loses its power: kill_node.sh NODE DIR kills its slurmd, its step daemons and all that they started.
# It comes back with: . DIR/env; slurmd -N NODE
set -uo pipefail
node=$1 dir=$(cd "${2:?usage: NODE DIR}" && pwd)
read -r slurmd <"$dir/pid/$node"
declare -a pids=("$slurmd")
# a step daemon is no child of slurmd, but writes into the log of its node
for comm in /proc/[0-9]*/comm; do
  [[ $(cat "$comm" 2>/dev/null) = slurmstepd* ]] || continue
  pid=${comm#/proc/}; pid=${pid%/comm}
  [ -n "$(find "/proc/$pid/fd" -lname "$dir/log/$node" 2>/dev/null)" ] && pids+=("$pid")
done
for ((i = 1; i < ${#pids[@]}; i++)); do   # the list grows: children of children
  for task in /proc/"${pids[i]}"/task/*; do
    for child in $(cat "$task/children" 2>/dev/null); do pids+=("$child"); done
  done
done
kill -KILL $(printf '%s\n' "${pids[@]}" | sort -u) 2>/dev/null
rm -f "$dir/pid/$node"
echo "$node is gone: ${#pids[@]} processes"
