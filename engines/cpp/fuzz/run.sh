#!/bin/sh
# Runs every fuzz target of a build for some seconds, side by side, each from its folder of seeds.
#
#   engines/cpp/fuzz/run.sh TARGETS SEEDS FINDINGS SECONDS
#
# An input that crashes a target, leaks, or takes longer than 10 seconds or more than 1 GB is left in FINDINGS, and the
# run fails with what the sanitizer said.
set -eu
targets=$1 seeds=$2 findings=$3 seconds=$4
corpus=$(mktemp -d)
trap 'rm -rf "$corpus"' EXIT
mkdir -p "$findings"
running=
for target in "$targets"/*_fuzz; do
    part=$(basename "$target" _fuzz)
    mkdir "$corpus/$part"
    "$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 \
        -artifact_prefix="$findings/$part-" "$corpus/$part" "$seeds/$part" >"$findings/$part.log" 2>&1 &
    running="$running $part:$!"
done
status=0
for job in $running; do
    part=${job%%:*}
    if wait "${job##*:}"; then
        echo "$part: $(sed -n 's/^stat::number_of_executed_units: *//p' "$findings/$part.log") inputs, no finding"
    else
        tail -n 60 "$findings/$part.log" >&2
        echo "$part: a finding, see $findings" >&2
        status=1
    fi
done
exit $status
