//go:build integration

package store

// Careless makes Update return before its commit is on the medium: the negative
// control of the tests that cut the power. No product is built with this tag.
func (s *Bolt) Careless() { s.db.NoSync = true }
