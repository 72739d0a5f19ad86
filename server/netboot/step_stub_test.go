//go:build !integration

package netboot

// runStep does nothing without the integration tag.
func runStep() bool { return false }
