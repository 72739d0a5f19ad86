package api

import "time"

// HostPlace is where a host sits and what the admin says about it, beside its
// identity.
type HostPlace struct {
	Seat      string   `json:"seat,omitempty"`       // label of a seat of its room
	Labels    []string `json:"labels,omitempty"`     // the admin's own words, for picking hosts
	Protect   bool     `json:"protect,omitempty"`    // never written as one of a room: only when it is named
	SharedNIC bool     `json:"shared_nic,omitempty"` // its MAC belongs to a dock or dongle that travels: it names no PC
	Serial    string   `json:"serial,omitempty"`     // system serial number

	// What the server keeps; not changed by saving a host.
	Claimed     bool      `json:"claimed,omitempty"`      // typed or imported; the PC itself has not confirmed it yet
	Quarantined string    `json:"quarantined,omitempty"`  // why it gets no order until somebody answers, "" = it does
	PendingMACs []string  `json:"pending_macs,omitempty"` // seen on it, not its own: dock, dongle, new card
	KnownDisks  []DiskRef `json:"known_disks,omitempty"`  // that may be written; another one needs accept-disk
	NotUnique   []string  `json:"not_unique,omitempty"`   // evidence it shares with other PCs, which counts for nothing
}

// DiskRef is the identity of a disk. Without WWN and serial number model and
// size stand for it.
type DiskRef struct {
	WWN    string `json:"wwn,omitempty"`
	Serial string `json:"serial,omitempty"`
	Model  string `json:"model,omitempty"`
	Bytes  int64  `json:"bytes"`
}

// HostMove is the body of POST RouteHosts/{name}/move.
type HostMove struct {
	Room string `json:"room"`
	Seat string `json:"seat,omitempty"`
}

// Room is a classroom. One that nobody has saved exists while it has hosts;
// then only Name and Hosts are set.
type Room struct {
	Name     string   `json:"name"` // id: letters, digits, hyphens
	Title    string   `json:"title,omitempty"`
	Subnets  []string `json:"subnets,omitempty"`     // IPv4 CIDR, none = the lab segment
	Uplink   int      `json:"uplink_mbps,omitempty"` // Mb/s into the room, 0 = unknown
	Rows     int      `json:"rows,omitempty"`        // of the seat map, 0 = no map
	Cols     int      `json:"cols,omitempty"`
	Door     *Spot    `json:"door,omitempty"`
	Desk     *Spot    `json:"desk,omitempty"`          // the teacher's
	Template string   `json:"name_template,omitempty"` // of computer names, "" = {room}-{seat}
	Language string   `json:"language,omitempty"`      // of the screens of its PCs while they are imaged (Languages), "" = en
	Windows  bool     `json:"windows,omitempty"`       // names are held to the rules of Windows: 15 of A-Z 0-9 -
	Wake     *Wake    `json:"wake,omitempty"`
	Seats    []Seat   `json:"seats,omitempty"`
	Saved    bool     `json:"saved,omitempty"` // it has a record of its own
	Hosts    []string `json:"hosts"`
}

// Spot is a place of the seat map; rows and columns count from 1. Row 0 and
// column 0, rows+1 and cols+1 are the walls.
type Spot struct {
	Row int `json:"row"`
	Col int `json:"col"`
}

// Seat is a place for one PC. Row and Col 0 = not on the map.
type Seat struct {
	Label string `json:"label"`
	Row   int    `json:"row,omitempty"`
	Col   int    `json:"col,omitempty"`
	Host  string `json:"host,omitempty"` // who sits there, in answers only
}

// Wake says how a room's PCs are woken.
type Wake struct {
	Off       bool   `json:"off,omitempty"`       // they are switched on by hand
	Broadcast string `json:"broadcast,omitempty"` // directed broadcast address, "" = of the room's subnets
	Wave      int    `json:"wave,omitempty"`      // hosts at once, 0 = 20
	PauseS    int    `json:"pause_s,omitempty"`   // seconds between waves, 0 = 15
}

// Learn is learn mode: unknown PCs of one room boot the enrol profile. POST to
// RouteLearn with Room, Minutes and After opens it.
type Learn struct {
	Room    string    `json:"room"`
	Minutes int       `json:"minutes,omitempty"` // 0 = 30, at most 240
	After   string    `json:"after,omitempty"`   // what a PC does once it is bound: reboot (default), poweroff
	Started time.Time `json:"started,omitzero"`
	Until   time.Time `json:"until,omitzero"`
}

// Enrolment is an unknown PC that shows its code and waits for a seat.
type Enrolment struct {
	ID       string    `json:"id"`
	MAC      string    `json:"mac"`
	UUID     string    `json:"uuid"`
	Serial   string    `json:"serial"`
	Vendor   string    `json:"vendor"`
	Product  string    `json:"product"`
	IP       string    `json:"ip"`
	Disks    []Disk    `json:"disks"`
	Appeared time.Time `json:"appeared"`
	Expires  time.Time `json:"expires"`          // of its code
	Locked   bool      `json:"locked,omitempty"` // too many wrong codes were typed: it gets a new one in a moment
	Host     string    `json:"host,omitempty"`   // it was bound to
}

// EnrolBind puts a waiting PC on a seat: the one that shows Code, or the one
// with ID.
type EnrolBind struct {
	Code    string `json:"code,omitempty"`
	ID      string `json:"id,omitempty"`
	Room    string `json:"room"`
	Seat    string `json:"seat,omitempty"`
	Name    string `json:"name,omitempty"`    // "" = by the room's template
	Replace bool   `json:"replace,omitempty"` // the host on that seat gets this PC in place of its old one
}

// Question is something the server does not guess.
type Question struct {
	ID       uint64    `json:"id"`
	Kind     string    `json:"kind"` // ambiguous, new_disk, quarantined
	Host     string    `json:"host,omitempty"`
	Room     string    `json:"room,omitempty"`
	Asked    time.Time `json:"asked"`
	Text     string    `json:"text"`
	Choices  []Choice  `json:"choices"`
	MAC      string    `json:"mac,omitempty"`
	UUID     string    `json:"uuid,omitempty"`
	Disks    []DiskRef `json:"disks,omitempty"`
	Answer   string    `json:"answer,omitempty"` // "" = open
	Answered time.Time `json:"answered,omitzero"`
}

// Choice is one answer to a question.
type Choice struct {
	Name string `json:"name"`
	Text string `json:"text"`
}

// Kinds of questions.
const (
	QuestionAmbiguous  = "ambiguous"
	QuestionNewDisk    = "new_disk"
	QuestionQuarantine = "quarantined"
)

// Answers to questions.
const (
	AnswerSharedNIC = "shared-nic" // the MAC belongs to a dock or dongle: go by the UUID
	AnswerNotUnique = "not-unique" // the UUID stands in several PCs: go by the MAC
	AnswerNewBoard  = "new-board"  // it is that host, with a new mainboard
	AnswerAccept    = "accept"
	AnswerRelease   = "release"
	AnswerExclude   = "exclude"
	AnswerIgnore    = "ignore" // leave it: the PC goes on booting its own disk
)

// QuestionAnswer is the body of POST /v1/questions/{id}.
type QuestionAnswer struct {
	Answer string `json:"answer"`
}

// ImportRequest is a file of rooms or hosts: POST RouteImport.
type ImportRequest struct {
	What    string `json:"what"`   // rooms, hosts
	Format  string `json:"format"` // csv, toml
	Text    string `json:"text"`
	Windows bool   `json:"windows,omitempty"` // hold all computer names to the rules of Windows
	Save    bool   `json:"save,omitempty"`    // false = dry run
}

// ImportResult is what a file would change, or did. With Errors nothing is saved.
type ImportResult struct {
	Saved     bool          `json:"saved"`
	Added     []string      `json:"added"`
	Changed   []string      `json:"changed"`
	Unchanged int           `json:"unchanged"`
	Errors    []ImportIssue `json:"errors"`
	Warnings  []ImportIssue `json:"warnings"`
}

// ImportIssue is one thing wrong with a file. Line and Column count from 1.
type ImportIssue struct {
	Line   int    `json:"line"`
	Column int    `json:"column"`
	Field  string `json:"field,omitempty"`
	Text   string `json:"text"`
}

// Export is the text of an export: GET RouteExport?what=hosts&format=csv.
type Export struct {
	Text string `json:"text"`
}

// Routes of rooms and enrolment on the admin socket.
const (
	RouteLearn     = "/v1/learn"      // GET Learn, POST Learn, DELETE
	RouteEnrolled  = "/v1/enrolments" // GET []Enrolment; POST EnrolBind -> Host
	RouteQuestions = "/v1/questions"  // GET []Question; /{id} POST QuestionAnswer -> Question
	RouteImport    = "/v1/import"     // POST ImportRequest -> ImportResult
	RouteExport    = "/v1/export"     // GET Export
)
