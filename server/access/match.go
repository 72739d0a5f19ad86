package access

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strings"

	"labswarm/api"
)

// ETag names one state of a thing: v is what a person can edit of it, as JSON.
func ETag(v any) string {
	raw, err := json.Marshal(v)
	if err != nil { // a type that cannot be encoded: no tag fits, so every If-Match fails
		return `""`
	}
	sum := sha256.Sum256(raw)
	return `"` + hex.EncodeToString(sum[:8]) + `"`
}

// Match refuses an edit when the request's If-Match names another state than
// the present one. Call it inside the transaction of the edit, with the ETag
// of what is stored; "" = there is nothing yet. Without If-Match it allows.
func Match(ctx context.Context, present string) error {
	c := fromContext(ctx)
	if c == nil || c.match == "" {
		return nil
	}
	for want := range strings.SplitSeq(c.match, ",") {
		want = strings.TrimSpace(want)
		if present != "" && (want == "*" || want == present) {
			return nil
		}
	}
	return &api.Problem{Status: http.StatusPreconditionFailed, Title: "precondition failed", Code: api.CodePrecondition,
		Detail: "it was changed since you read it (If-Match " + bound(c.match, maxText) + ", now " + present + "): nothing was done; read it again and decide anew"}
}
