#!/usr/bin/env bash
# fuzz.sh TIME: runs every fuzz target of the module for TIME each.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-20s}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

fuzz() { # fuzz PACKAGE TARGET
	go test "$1" -run '^$' -fuzz "^$2\$" -fuzztime "$time" -fuzzminimizetime 10x >"$log" 2>&1
}

n=0
while IFS=: read -r file _ rest; do
	target=$(sed -E 's/func (Fuzz[A-Za-z0-9_]*).*/\1/' <<<"$rest")
	pkg=./$(dirname "$file")
	echo "== $pkg $target $time"
	# On a busy machine Go's fuzzer sometimes takes its own end for a failure
	# ("context deadline exceeded", no input named): that run is repeated.
	if ! fuzz "$pkg" "$target"; then
		if grep -q 'context deadline exceeded' "$log" && ! grep -q 'Failing input' "$log"; then
			fuzz "$pkg" "$target" || { cat "$log"; exit 1; }
		else
			cat "$log"
			exit 1
		fi
	fi
	grep 'execs:' "$log" | tail -n 1 || true
	n=$((n + 1))
done < <(git ls-files '*_test.go' | xargs grep -nE '^func Fuzz')
echo "$n fuzz targets, no failure"
