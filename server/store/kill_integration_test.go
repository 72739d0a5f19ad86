//go:build integration

package store_test

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"labswarm/server/store"
)

// TestKill writes numbers in a child process that is killed at random moments.
// The child prints a number only after its Update returned: every printed
// number must be in the store afterwards.
func TestKill(t *testing.T) {
	if path := os.Getenv("STORE_KILL_CHILD"); path != "" {
		killChild(t, path)
		return
	}
	dir := t.TempDir()
	path, snaps := filepath.Join(dir, "labswarm.db"), filepath.Join(dir, "snapshots")
	const kills = 50
	rng := rand.New(rand.NewPCG(1, 2))
	total := 0
	for round := range kills {
		acked := runChild(t, path, time.Duration(rng.IntN(40))*time.Millisecond)
		s, rec, err := store.Open(path, snaps)
		if err != nil || rec != nil {
			t.Fatalf("kill %d: Open = %v, recovery %v", round, err, rec)
		}
		for _, n := range acked {
			if got := read(t, s, "n/"+strconv.Itoa(n)); got != "done" {
				t.Fatalf("kill %d: number %d was acknowledged and is lost", round, n)
			}
		}
		total += len(acked)
		closeStore(t, s)
	}
	if total == 0 {
		t.Fatal("no number was ever acknowledged: the test proves nothing")
	}
	t.Logf("%d kills, %d acknowledged commits, 0 lost", kills, total)
}

// runChild lets the child acknowledge at least one number, waits for delay more
// and kills it.
func runChild(t *testing.T, path string, delay time.Duration) []int {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKill$")
	cmd.Env = append(os.Environ(), "STORE_KILL_CHILD="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var acked []int
	killer := (*time.Timer)(nil)
	sc := bufio.NewScanner(out)
	for sc.Scan() {
		n, err := strconv.Atoi(sc.Text())
		if err != nil {
			continue // a line of the test framework
		}
		acked = append(acked, n)
		if killer == nil {
			killer = time.AfterFunc(delay, func() { _ = cmd.Process.Kill() })
		}
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("the child ended by itself")
	}
	return acked
}

func killChild(t *testing.T, path string) {
	s, _, err := store.Open(path, filepath.Join(filepath.Dir(path), "snapshots"))
	if err != nil {
		t.Fatal(err)
	}
	for {
		var n uint64
		err := s.Update(t.Context(), func(tx store.Tx) error {
			var err error
			if n, err = tx.Seq("n"); err != nil {
				return err
			}
			return tx.Put("n/"+strconv.FormatUint(n, 10), []byte("done"))
		})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println(n)
	}
}
