package sim

import (
	"os"
	"testing"
)

func play(t *testing.T, sc *Scenario) *Result {
	t.Helper()
	var log *os.File
	if testing.Verbose() && os.Getenv("SIM_LOG") != "" {
		log = os.Stderr
	}
	var r *Result
	var err error
	if log != nil {
		r, err = Run(sc, log)
	} else {
		r, err = Run(sc, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range r.Broken {
		t.Errorf("%v: %s", sc, b)
	}
	return r
}

func TestQuiet(t *testing.T) {
	for _, n := range []int{1, 2, 8, 40, 100} {
		sc := Quiet(n, 20*n+200)
		r := play(t, sc)
		t.Logf("N=%d: %+v", n, *r)
	}
}

// TestSeeds plays random swarms, quiet and disturbed.
func TestSeeds(t *testing.T) {
	for seed := range uint64(60) {
		play(t, Random(seed, 24))
	}
}
