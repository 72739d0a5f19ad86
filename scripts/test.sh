#!/usr/bin/env bash
# test.sh unit|integration|e2e|all: runs the layers and ends with what was skipped.
# A skip names what is missing; with LABSWARM_NO_SKIP=1 it is a failure in the test itself.
set -uo pipefail
cd "$(dirname "$0")/.."
what=${1:-all}
mkdir -p build/test
log=build/test/$what.log
: >"$log"
status=0

run() { # run NAME go-test-arguments...: the whole output goes to the log, results to the screen
	local name=$1 rc
	shift
	echo "== $name"
	echo "== $name" >>"$log"
	go test -v "$@" 2>&1 | tee -a "$log" |
		grep --line-buffered -E '^(ok  |FAIL|panic:|--- (PASS|FAIL|SKIP): Test.*\(([1-9][0-9]|[5-9])|\s*--- (FAIL|SKIP))|^[^ ]+\.go:[0-9]+:[0-9]+:|cannot|undefined'
	rc=${PIPESTATUS[0]}
	[ "$rc" = 0 ] || status=1
}

tagged() { # tagged TAG: the packages that have test files of this build tag
	grep -rlE "^//go:build .*\b$1\b" --include='*_test.go' --exclude-dir=build . | xargs -r -n1 dirname | sort -u
}

if [ "$what" = unit ] || [ "$what" = all ]; then
	run unit -shuffle=on ./...
fi
if [ "$what" = integration ] || [ "$what" = all ]; then
	# one package at a time: namespaces, loop devices and ports are shared
	run integration -p 1 -timeout 15m -tags integration $(tagged integration)
fi
if [ "$what" = e2e ] || [ "$what" = all ]; then
	rm -rf build/test/e2e # reports and logs of the rooms
	run e2e -p 1 -count=1 -tags e2e -timeout 30m $(tagged e2e)
fi

echo
skipped=$(grep -hoE 'SKIP: needs .*' "$log" | sort | uniq -c)
if [ -n "$skipped" ]; then
	echo "skipped tests, by what this machine lacks:"
	echo "$skipped"
else
	echo "skipped tests: none"
fi
# own_words TEST...: what each failed test itself said. With -v a test's lines stand
# behind its "=== RUN" line, far above the verdict, which comes with its parent's.
own_words() {
	local t
	for t in "$@"; do
		echo "---- $t"
		awk -v t="$t" '
			$1 == "===" && ($2 == "RUN" || $2 == "CONT" || $2 == "NAME") { mine = ($3 == t); next }
			mine && !/^ *--- (PASS|SKIP)/ { line[n++ % 60] = $0 }
			END { for (i = (n > 60 ? n - 60 : 0); i < n; i++) print line[i % 60] }' "$log"
	done
}

if [ $status -ne 0 ]; then
	echo
	echo "FAILED. The whole output is in $log. What failed, each with its last lines:"
	mapfile -t failed < <(grep -oE -- '--- FAIL: [^ ]+' "$log" | cut -d' ' -f3 | sort -u | head -12)
	own_words "${failed[@]}"
	grep -E -A 15 '^panic:' "$log" | head -40
	grep -E '^FAIL' "$log" | sort -u
fi
exit $status
