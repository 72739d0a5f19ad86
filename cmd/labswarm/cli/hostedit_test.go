package cli

import (
	"errors"
	"strings"
	"testing"

	"labswarm/api"
)

func TestChangedMeanwhile(t *testing.T) {
	err := changedMeanwhile(&api.Problem{Status: 412, Code: api.CodePrecondition, Detail: "If-Match"}, "a1")
	var c *codeError
	if !errors.As(err, &c) || c.code != ExitConflict || !strings.Contains(err.Error(), "host show a1") || strings.Contains(err.Error(), "If-Match") {
		t.Errorf("412 = %v", err)
	}
	if other := errors.New("other"); !errors.Is(changedMeanwhile(other, "a1"), other) || changedMeanwhile(nil, "a1") != nil {
		t.Error("other errors are changed")
	}
}
