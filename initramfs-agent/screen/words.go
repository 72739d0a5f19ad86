package screen

import (
	"labswarm/api"
)

// words is all that the screen says in one language, in ASCII: the font of a
// text console holds nothing else for certain. A test wants every field filled.
type words struct {
	room, seat, newPC           string
	server, job, agent, network string // labels of the last lines; network takes Mb/s
	host, serial                string
	start, step                 string // step: number, of how many, what
	steps                       map[api.State]string
	capturing                   map[api.State]string // where a capture differs
	soon, minute, minutes       string               // time left; minutes takes a number
	waitFrom, wait, still       string               // nothing moves: from whom and m:ss; m:ss; m:ss
	nothing, never, done, read  string               // the sentences for whoever stands before the PC
	problem, code               string
	unusable, untouched, proven string // what a failure means for this PC
	others                      string
	tell, cable                 string // what to do
	fails                       map[string]string
	otherFail                   string
	unknownPC, safe             string            // enrolment
	bound, boundSeat            string            // host, room; host, seat, room
	details                     map[string]string // what it waits for, by its English words
}

// language is the table of a room's language, English for those that are not there.
func language(tag string) *words {
	switch tag {
	case "it":
		return &italian
	case "de":
		return &german
	case "es":
		return &spanish
	case "fr":
		return &french
	}
	return &english
}

// fail is the sentence of a failure by its class.
func (w *words) fail(class string) string {
	if s := w.fails[class]; s != "" {
		return s
	}
	return w.otherFail
}

// detail is what the agent waits for in this language; words of a rare kind, and
// those of the server, stay as they are.
func (w *words) detail(s string) string {
	if t := w.details[s]; t != "" {
		return t
	}
	return s
}

var english = words{
	room: "Room", seat: "seat", newPC: "new PC",
	server: "server", job: "job", agent: "agent", network: "network %d Mb/s", host: "name", serial: "serial",
	start: "Starting", step: "Step %d of %d: %s",
	steps: map[api.State]string{
		api.StateEnrolled: "waiting for the order", api.StateChecking: "looking what is there already", api.StateWriting: "writing",
		api.StateVerifying: "reading everything back", api.StateFinalising: "writing the partition table",
		api.StateDone: "done, helping the others", api.StateRebooting: "restarting",
	},
	capturing: map[api.State]string{
		api.StateChecking: "looking what is to be read", api.StateCapturing: "reading this disk for an image",
		api.StateVerifying: "the server checks the image", api.StateDone: "done, the image is there",
	},
	soon: "less than a minute left", minute: "about a minute left", minutes: "about %d minutes left",
	waitFrom: "waiting for data from %s, %s", wait: "waiting for data, %s", still: "no progress for %s",
	nothing: "You may switch off, nothing has been changed",
	never:   ">>> DO NOT SWITCH OFF. The PC restarts by itself. <<<",
	done:    "Finished, restarting",
	read:    "This PC is only read, nothing is changed. If switched off, it goes on next time.",
	problem: "PROBLEM", code: "code",
	unusable:  "The PC cannot be used now.",
	untouched: "Nothing has been changed. The PC starts from its own disk.",
	proven:    "The new system is on the disk. The PC starts from it.",
	others:    "Other PCs are not affected. You may switch this PC off.",
	tell:      "Tell the lab office the code above.",
	cable:     "Check the network cable and switch the PC on again. If it stays so, tell the lab office the code above.",
	fails: map[string]string{
		api.CodeNoLink: "There is no network link: no cable, or the socket is dead.", api.CodeNoAddress: "The network gives this PC no address.",
		api.CodeNoServer: "The server does not answer.", api.CodeServerKey: "Another server answered than the one this PC trusts.",
		api.CodeNoOrder: "There is no order for this PC.", api.CodeDiskNotFound: "The disk is not there, or it is not the one expected.",
		api.CodeDiskTooSmall: "The disk is too small for this image.", api.CodeDiskWrite: "This disk cannot be written.",
		api.CodeDiskRead: "This disk cannot be read.", api.CodeVerify: "The disk does not keep what is written to it.",
		api.CodeMemory: "The memory of this PC is faulty.", api.CodeCorrupt: "Data arrives damaged at this PC again and again.",
		api.CodeNoSource: "Nobody sends the data.", api.CodeCrash: "The program on this PC has stopped.",
		api.CodeHeld: "This PC waits for a person's decision.", api.CodeBadOrder: "The order was refused by this PC.",
		api.CodeBadImage: "The image is damaged or not signed by a trusted key.", api.CodeGuard: "This disk should not become an image.",
		api.CodeCapture: "The image made of this disk does not fit together.", api.CodeDiskSector: "The disk has another sector size than the image.",
		api.CodeAmbiguous: "More than one disk fits, so none was written.", api.CodeDiskForeign: "The disk belongs to a RAID or is encrypted.",
		api.CodeDiskNew: "This disk was not seen in this PC before.", api.CodePersonalise: "The PC's own name and keys could not be put on the disk.",
	},
	otherFail: "This PC could not be set up.",
	unknownPC: "This PC is not known yet. The admin types this code and its seat:",
	safe:      "Its disk is not touched, nothing can be written now. You may switch off.",
	bound:     "This PC is %s now, in room %s.", boundSeat: "This PC is %s now, on seat %s of room %s.",
	details: map[string]string{},
}
