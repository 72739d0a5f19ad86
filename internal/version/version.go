// Package version names the build. Both binaries print it; nothing depends on
// it.
package version

import "runtime/debug"

// override is set by the linker: -ldflags '-X labswarm/internal/version.override=1.2.3'.
var override string

// String returns the release, or the VCS revision of the build, or "dev".
func String() string {
	if override != "" {
		return override
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && len(s.Value) >= 12 {
				return s.Value[:12]
			}
		}
	}
	return "dev"
}
