package event

import (
	"testing"
	"time"

	"labswarm/api"
	"labswarm/server/store"
)

func TestAppendSincePrune(t *testing.T) {
	s := store.NewMem()
	err := s.Update(t.Context(), func(tx store.Tx) error {
		for range 20 {
			if _, err := Append(tx, api.Event{Code: "x"}); err != nil {
				return err
			}
		}
		for _, tc := range []struct {
			after uint64
			limit int
			first uint64
			n     int
		}{{0, 0, 1, 20}, {0, 5, 1, 5}, {17, 0, 18, 3}, {20, 0, 0, 0}, {99, 0, 0, 0}} {
			got, err := Since(tx, tc.after, tc.limit)
			if err != nil {
				return err
			}
			if len(got) != tc.n || (tc.n > 0 && got[0].Seq != tc.first) {
				t.Errorf("Since(%d, %d) = %d events %v; want %d from %d", tc.after, tc.limit, len(got), got, tc.n, tc.first)
			}
		}
		if n, err := Prune(tx, 15, time.Time{}); err != nil || n != 5 {
			t.Errorf("Prune = %d, %v; want 5", n, err)
		}
		if got, _ := Since(tx, 0, 1); len(got) != 1 || got[0].Seq != 6 {
			t.Errorf("oldest after Prune: %v; want 6", got)
		}
		if n, err := Prune(tx, 15, time.Time{}); err != nil || n != 0 {
			t.Errorf("second Prune = %d, %v; want 0", n, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestPruneByAge: events go when they are old, however few there are.
func TestPruneByAge(t *testing.T) {
	day := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	err := store.NewMem().Update(t.Context(), func(tx store.Tx) error {
		for i := range 10 {
			if _, err := Append(tx, api.Event{Code: "x", Time: day.AddDate(0, 0, i)}); err != nil {
				return err
			}
		}
		for _, tt := range []struct {
			before time.Time
			want   int
		}{{day, 0}, {day.AddDate(0, 0, 3), 3}, {day.AddDate(0, 0, 3), 0}, {day.AddDate(1, 0, 0), 7}, {day.AddDate(1, 0, 0), 0}} {
			if n, err := Prune(tx, Keep, tt.before); err != nil || n != tt.want {
				t.Errorf("before %s: %d, %v; want %d", tt.before.Format(time.DateOnly), n, err, tt.want)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestBellNeverBlocks(t *testing.T) {
	var b Bell
	b.Ring() // nobody listens
	ch, cancel := b.Subscribe()
	for range 100 {
		b.Ring() // the reader is slow
	}
	<-ch
	select {
	case <-ch:
		t.Error("more than one wake-up was queued")
	default:
	}
	cancel()
	b.Ring()
	select {
	case <-ch:
		t.Error("woken after cancel")
	default:
	}
}
