#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Proves that the hunter can catch: every bug of planted.def, switched on alone, is found within LIMIT seeds, all under
# one fault profile. A find counts only when it says what this bug breaks (the verdict in planted.def), in a seed that
# holds without the bug. What OPS actions a seed do not find is looked for in seeds that go on until the measure (docs/design/0010).
#   tests/sim/planted.sh SPOOLSIM [NAME...]     SPOOLSIM: of a build with -DIRONSPOOL_PLANTED=ON
#   LIMIT=100 OPS=1200 COUNT=0: seeds, actions per seed, and over how many seeds to count the finds besides the first
set -u
sim=${1:?"usage: planted.sh SPOOLSIM [NAME...]"}
shift
limit=${LIMIT:-100} ops=${OPS:-1200} count=${COUNT:-0} profile=cruel
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
ulimit -c 0
ulimit -t 120 # seconds of CPU for one seed: a run that never ends is a find, too
declare -A control

# run NAME SEED: 0 when the seed held; else what was violated is in $said
run()
{
    { "$sim" --planted "$1" --seed "$2" --faults "$profile" "${actions[@]}" --once >"$work/out" 2>"$work/err"; } 2>"$work/bash"
    local code=$?
    [ $code -eq 0 ] && return 0
    said=$(sed -n 's/^seed [0-9]* FAILED at [^:]*: //p; s/^ironspool: invariant broken: /ASSERT: /p' "$work/out" "$work/err" | head -n 1)
    [ $code -eq 2 ] && { cat "$work/err" >&2; exit 2; }
    [ -n "$said" ] || said="ended by signal $((code - 128))"
    return 1
}

holds_alone()
{
    local keep=$said
    local key="$1 ${actions[*]}"
    [ -n "${control[$key]:-}" ] || { control[$key]=yes; run none "$1" || control[$key]=no; }
    said=$keep
    [ "${control[$key]}" = yes ]
}

declare -A verdict
while IFS=$'\t' read -r name wanted _; do
    verdict[$name]=$wanted
    all+=("$name")
done < <("$sim" --planted list)
[ $# -gt 0 ] || set -- "${all[@]}"
printf '%-22s %5s  %s\n' "planted bug" "seed" "found by"
missed=0
for name in "$@"; do
    first= first_said= finds=0 actions=(--ops "$ops")
    for ((seed = 1; seed <= limit; seed++)); do
        [ -n "$first" ] && [ $seed -gt "$count" ] && break
        run "$name" $seed && continue
        [[ $said =~ ${verdict[$name]} ]] || continue
        holds_alone $seed || continue
        finds=$((finds + 1))
        [ -n "$first" ] || { first=$seed first_said=$said; }
    done
    actions=()
    for ((seed = 1; seed <= limit && ${first:-0} == 0; seed++)); do
        run "$name" $seed && continue
        [[ $said =~ ${verdict[$name]} ]] && holds_alone $seed && first=$seed finds=1 first_said="measured: $said"
    done
    [ "$count" -gt 0 ] && [ -n "$first" ] && first_said="$finds of $((count > limit ? limit : count)): $first_said"
    printf '%-22s %5s  %.160s\n' "$name" "${first:--}" "${first_said:-NOT FOUND in $limit seeds}"
    [ -n "$first" ] || missed=$((missed + 1))
done
printf '%d bugs, %d not found within %d seeds (profile %s, %d actions a seed)\n' $# $missed "$limit" "$profile" "$ops"
[ $missed -eq 0 ]
