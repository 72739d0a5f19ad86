package frame

// Policies of Pays, as people write them.
const (
	Auto = "auto" // by link and disk; also ""
	On   = "on"
	Off  = "off"
)

// fastLink is the speed from which plain cells are faster, in Mb/s: one core
// unpacks and hashes some 350 MB/s of cells, such a link brings 1250.
const fastLink = 10_000

// Pays decides whether a host lets cells travel compressed. linkMbps is the speed
// of its network adapter in Mb/s, diskBps what its disk can take in bytes per
// second; 0 = not known. On a fast link cells travel plain, unless the disk is
// slower than the link: then compression costs no time and spares the others'
// links.
func Pays(policy string, linkMbps int, diskBps int64) bool {
	switch policy {
	case On:
		return true
	case Off:
		return false
	}
	return linkMbps < fastLink || diskBps > 0 && diskBps < int64(linkMbps)*1_000_000/8
}
