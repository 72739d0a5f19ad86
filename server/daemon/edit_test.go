package daemon

import (
	"errors"
	"testing"

	"labswarm/api"
)

// TestEditOfAHostThatWasChanged: two people read a host; the second edit is
// refused, and a new reading lets it pass.
func TestEditOfAHostThatWasChanged(t *testing.T) {
	s := newSite(t)
	s.host("a1")
	h, tag, err := s.cli.HostToEdit(t.Context(), "a1")
	if err != nil || tag == "" {
		t.Fatal(tag, err)
	}
	h.Disk = "ABC123"
	if _, err := s.cli.EditHost(t.Context(), h, tag); err != nil {
		t.Fatal(err)
	}
	h.Disk = "XYZ789"
	var p *api.Problem
	if _, err := s.cli.EditHost(t.Context(), h, tag); !errors.As(err, &p) || p.Code != api.CodePrecondition {
		t.Errorf("edit of what is not there any more = %v", err)
	}
	now, tag, err := s.cli.HostToEdit(t.Context(), "a1")
	if err != nil || now.Disk != "ABC123" {
		t.Fatal(now.Disk, err)
	}
	if out, err := s.cli.EditHost(t.Context(), h, tag); err != nil || out.Disk != "XYZ789" {
		t.Errorf("edit after reading again = %+v, %v", out, err)
	}
}
