package control

import (
	"context"
	"errors"

	"labswarm/server/access"
	"labswarm/server/inventory"
	"labswarm/server/store"
)

// unchanged refuses an edit of a host that somebody else changed since the
// caller read it (If-Match).
func unchanged(ctx context.Context, tx store.Tx, name string) error {
	h, err := inventory.Get(tx, name)
	var none *inventory.NotFoundError
	switch {
	case errors.As(err, &none):
		return access.Match(ctx, "")
	case err != nil:
		return err
	}
	return access.Match(ctx, access.ETag(h.Editable()))
}
