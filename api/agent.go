package api

// Disk is one whole disk as the agent sees it.
type Disk struct {
	Name      string `json:"name"`           // kernel name, for people only: never an identity
	WWN       string `json:"wwn,omitempty"`  // WWN, EUI-64 or NGUID
	Serial    string `json:"serial"`         // trimmed; "" when the disk has none
	Model     string `json:"model"`          //
	Bus       string `json:"bus"`            // virtio, sata, nvme, usb, mmc, scsi
	Bytes     int64  `json:"bytes"`          // capacity
	Sector    int    `json:"sector"`         // logical sector size, bytes
	Removable bool   `json:"removable"`      //
	ReadOnly  bool   `json:"read_only"`      //
	InUse     string `json:"in_use"`         // mounts, holders; "" = free
	Note      string `json:"note,omitempty"` // why it was left out of the candidates
	Foreign   []Mark `json:"foreign,omitempty"`
}

// Mark is a sign on a disk that its data is part of something bigger, or locked:
// a member of a RAID or a pool, an encrypted volume. Such a disk is written only
// when the job says so.
type Mark struct {
	Kind  string `json:"kind"`  // bitlocker, luks, lvm, zfs, mdraid, fwraid, winpool, btrfspool; unreadable = nobody could look
	Off   int64  `json:"off"`   // where its partition begins, bytes; 0 = the whole disk
	At    int64  `json:"at"`    // where its signature stands, bytes from the start of the disk
	Where string `json:"where"` // for people: nvme0n1p3, the whole disk
}

// MarkUnreadable is the Kind of a disk that could not be looked at.
const MarkUnreadable = "unreadable"

// NIC is one network interface, with its permanent address.
type NIC struct {
	Name      string `json:"name"`
	MAC       string `json:"mac"` // permanent address, lower case with colons
	Bus       string `json:"bus"`
	Driver    string `json:"driver"`
	SpeedMbps int    `json:"speed_mbps"` // 0 = unknown
	Boot      bool   `json:"boot"`       // the interface the machine booted from
}

// Evidence is what a machine says of itself; a MAC is a name, not a credential.
type Evidence struct {
	UUID         string   `json:"uuid"`   // SMBIOS type 1, canonical lower case, "" = none
	Serial       string   `json:"serial"` // system serial
	Vendor       string   `json:"vendor"`
	Product      string   `json:"product"`
	NICs         []NIC    `json:"nics"`
	Disks        []Disk   `json:"disks"`
	RAMBytes     int64    `json:"ram_bytes"`
	Firmware     string   `json:"firmware"` // bios or uefi
	SecureBoot   bool     `json:"secure_boot"`
	Lockdown     string   `json:"lockdown"`
	Kernel       string   `json:"kernel"`
	NoDriver     []string `json:"no_driver,omitempty"`      // modalias strings nothing matched
	UptimeMs     int64    `json:"uptime_ms"`                // kernel clock when enrolling
	AgentRSSByte int64    `json:"agent_rss_byte,omitempty"` // resident memory of the agent, bytes
}

// EnrolRequest opens a boot session: POST /agent/v1/enrol. The TLS client
// certificate carries the key of this boot.
type EnrolRequest struct {
	BootID   string   `json:"boot_id"` // 32 hex digits, random, of this boot
	Nonce    string   `json:"nonce"`   // 32 hex digits, random, repeated in the order
	Version  string   `json:"version"` // agent build
	PeerPort int      `json:"peer_port"`
	Profile  string   `json:"profile,omitempty"` // "" = the agent, ProfileEnrol = the agent that cannot write
	Evidence Evidence `json:"evidence"`
}

// ProfileEnrol is the Profile of the agent built with -tags enrolonly. It is
// never given an order.
const ProfileEnrol = "enrol"

// Enrol statuses. The last two answer ProfileEnrol only.
const (
	EnrolOK      = "ok"       // fetch the order
	EnrolGoLocal = "go_local" // nothing to do here: boot the local disk
	EnrolWait    = "wait"     // ask again after RetryAfterS
	EnrolPending = "pending"  // show Code and ask again after RetryAfterS
	EnrolBound   = "bound"    // this PC is Host now
)

// EnrolReply answers EnrolRequest.
type EnrolReply struct {
	Status      string `json:"status"`
	Host        string `json:"host"` // name from the host record
	Room        string `json:"room"`
	Job         uint64 `json:"job"`
	Image       string `json:"image"` // name/version, for the screen
	Reason      string `json:"reason"`
	RetryAfterS int    `json:"retry_after_s"`
	EnrolCode   string `json:"enrol_code,omitempty"` // six digits to be typed by the admin
	Seat        string `json:"seat,omitempty"`       // where it stands, for the screen
	Language    string `json:"language,omitempty"`   // of its room, for the screen: en it de es fr, "" = en
	After       string `json:"after,omitempty"`      // with EnrolBound: reboot, poweroff
	Frames      string `json:"frames,omitempty"`     // compressed cells: on, off; "" = the host decides by its link and disk
}

// PlanCounts is the agent's own plan after CHECKING: what would be written.
type PlanCounts struct {
	CellsWrite int   `json:"cells_write"` // data cells to fetch and write
	CellsKeep  int   `json:"cells_keep"`  // data cells already right
	CellsZero  int   `json:"cells_zero"`  // zero cells to clear
	BytesWrite int64 `json:"bytes_write"`
}

// CommenceRequest asks for the point of no return: POST /agent/v1/commence.
type CommenceRequest struct {
	OrderID    string     `json:"order_id"`
	BootID     string     `json:"boot_id"`
	PlanDigest string     `json:"plan_digest"` // hex SHA-256 over order id, disk identity and PlanCounts
	Plan       PlanCounts `json:"plan"`
	Disk       Disk       `json:"disk"`
}

// Progress is sent every Interval: POST /agent/v1/progress.
type Progress struct {
	BootID string `json:"boot_id"`
	State  State  `json:"state"`
	Detail string `json:"detail"` // what it waits for, one line for people

	CellsTotal   int `json:"cells_total"`   // data cells of the image
	CellsHave    int `json:"cells_have"`    // right on the disk, kept ones included
	CellsKept    int `json:"cells_kept"`    // found right by the scan
	CellsWritten int `json:"cells_written"` // fetched and written in this boot
	Front        int `json:"front"`         // lowest missing piece

	PhaseDone  int64 `json:"phase_done"`  // bytes of the present phase (scan, write, read-back)
	PhaseTotal int64 `json:"phase_total"` //

	RateBps         int64  `json:"rate_bps"` // bytes per second, last seconds
	BytesFromSeed   int64  `json:"bytes_from_seed"`
	BytesFromPeers  int64  `json:"bytes_from_peers"`
	BytesUploaded   int64  `json:"bytes_uploaded"`
	WireBytes       int64  `json:"wire_bytes,omitempty"` // received as they travelled, compressed or not; the others count image bytes
	Parent          string `json:"parent"`               // host id, "server", "" = none
	ParentSlow      bool   `json:"parent_slow"`
	HashFailures    int    `json:"hash_failures"`
	Switches        int    `json:"switches"`
	AgentRSSBytes   int64  `json:"agent_rss_bytes"`
	UptimeMs        int64  `json:"uptime_ms"`
	InSwarm         bool   `json:"in_swarm"`                // serves and fetches cells now
	AccusedHosts    []Accu `json:"accused_hosts,omitempty"` // bad cells received since the last report
	WaitingForPeers bool   `json:"waiting_for_peers,omitempty"`
	Brake           string `json:"brake,omitempty"`     // what in this machine limits the rate now: link, disk, cpu; "" = nothing of its own
	SelfTest        string `json:"self_test,omitempty"` // of a suspect's memory: "running", or "passed: " and what was tested; a failed one is a Result
}

// Values of Progress.Brake.
const (
	BrakeLink = "link" // the network interface runs at its speed
	BrakeDisk = "disk" // pieces wait to be written
	BrakeCPU  = "cpu"  // pieces wait to be unpacked or hashed
)

// Accu is one accusation: a cell from a host did not match its hash.
type Accu struct {
	Host  string `json:"host"`
	Piece int    `json:"piece"`
}

// PeerRef names a peer to fetch from.
type PeerRef struct {
	HostID string `json:"host_id"` // host name; "server" for the seed
	Addr   string `json:"addr"`    // ip:port
	Server bool   `json:"server"`  // a seed: always trusted as source
}

// Assignment is the planner's word for one host.
type Assignment struct {
	Rev       uint64    `json:"rev"` // rises with every change for this host
	Parent    PeerRef   `json:"parent"`
	Fallbacks []PeerRef `json:"fallbacks"`
	Release   bool      `json:"release"` // nobody needs this host as a source any more
	// UploadMbps caps what this host sends to all others together, Mb/s
	// (1 000 000 bit/s of image bytes as they travel); 0 = no cap.
	UploadMbps int `json:"upload_mbps,omitempty"`
	// Suspect: this host accused or left several others who are well. It tests
	// its own memory and fails if that is bad.
	Suspect bool `json:"suspect,omitempty"`
}

// Commands of a ProgressReply. They are hints: nothing in them starts a write.
const (
	CommandCancel  = "cancel"   // job cancelled before commence: boot local
	CommandGoLocal = "go_local" // the server no longer knows this boot session: reboot
)

// ProgressReply answers Progress.
type ProgressReply struct {
	IntervalMs int         `json:"interval_ms"`
	Commands   []string    `json:"commands,omitempty"`
	Assignment *Assignment `json:"assignment,omitempty"`
}

// AgentEvent is one SSE event of GET /agent/v1/events.
type AgentEvent struct {
	Kind       string      `json:"kind"` // assign, command
	Assignment *Assignment `json:"assignment,omitempty"`
	Command    string      `json:"command,omitempty"`
}

// Result ends a deployment: POST /agent/v1/result. Repeatable: same result,
// same ack.
type Result struct {
	BootID  string `json:"boot_id"`
	OrderID string `json:"order_id"`
	Fence   uint64 `json:"fence"` // 0 when it failed before commence
	OK      bool   `json:"ok"`
	Code    string `json:"code"`  // errcode when not OK
	Error   string `json:"error"` // sentence for people when not OK
	// ReadOut is the code on the PC's screen that a person reads out: Code, a
	// hyphen, four characters (CheckReadOut).
	ReadOut  string     `json:"read_out,omitempty"`
	Fault    *DiskFault `json:"disk_fault,omitempty"` // when the disk refused something
	Disk     Disk       `json:"disk"`
	Readback string     `json:"readback"` // hex SHA-256 over all read-back cell digests, in cell order; before the host's own files were changed

	Warnings []string `json:"warnings,omitempty"`  // of growing and personalising, for people
	HostKeys []string `json:"host_keys,omitempty"` // public SSH keys made for this host, "type base64"

	CellsWritten   int   `json:"cells_written"`
	CellsKept      int   `json:"cells_kept"`
	CellsZeroed    int   `json:"cells_zeroed"`
	CellsVerified  int   `json:"cells_verified"`
	BytesFromSeed  int64 `json:"bytes_from_seed"`
	BytesFromPeers int64 `json:"bytes_from_peers"`
	BytesUploaded  int64 `json:"bytes_uploaded"`
	HashFailures   int   `json:"hash_failures"`
	AgentRSSBytes  int64 `json:"agent_rss_bytes"`
}

// ResultAck says that the result is committed. From then on the boot decision
// of the host is local.
type ResultAck struct {
	OK    bool  `json:"ok"`
	State State `json:"state"`
}

// LogRequest carries the agent's last log lines on failure: POST /agent/v1/log.
type LogRequest struct {
	BootID string `json:"boot_id"`
	Text   string `json:"text"` // at most 256 KiB
}

// Routes of the agent listener (TLS). There is no admin route on it.
const (
	RouteEnrol    = "/agent/v1/enrol"
	RouteOrder    = "/agent/v1/order"    // GET: order.Envelope, 204 = none yet
	RouteImage    = "/agent/v1/image/"   // GET + manifest.json|manifest.sig|image.torrent|used.bin|hashes.bin|hooks.bin of the ordered image
	RouteCommence = "/agent/v1/commence" // POST: order.Envelope of a commence, or Problem
	RouteProgress = "/agent/v1/progress"
	RouteEvents   = "/agent/v1/events" // GET: SSE of AgentEvent
	RouteResult   = "/agent/v1/result"
	RouteLog      = "/agent/v1/log"
)

// AgentPort and PeerPort are the default TCP ports of the agent listener and
// of swarm peers; PlainTrackerPort is used with --plain-peers only.
const (
	AgentPort        = 7440
	PeerPort         = 7441
	PlainTrackerPort = 7442
)
