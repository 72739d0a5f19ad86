package app

import (
	"strings"
	"testing"

	"labswarm/api/client"
	"labswarm/tui/keymap"
	"labswarm/tui/tuitest"
)

// walker is a console in the middle of a night, with a server that answers.
func walker(t *testing.T) *console {
	t.Helper()
	c, _ := walkerAndServer(t)
	return c
}

func walkerAndServer(t *testing.T) (*console, *tuitest.Server) {
	t.Helper()
	srv := tuitest.NewServer(t, tuitest.Facts(40))
	cl := client.New(srv.Socket)
	t.Cleanup(cl.Close)
	return newConsole(t, cl, tuitest.Night()), srv
}

func (c *console) typeText(text string) {
	c.t.Helper()
	for _, r := range text {
		k := string(r)
		if r == ' ' {
			k = "space"
		}
		c.press(k)
	}
}

func TestNumbersGoToScreens(t *testing.T) {
	c := walker(t)
	for key, want := range map[string]string{"2": "Jobs   1 running, 2 ended", "5": "48 in 3 rooms", "6": "following", "1": "[A101 40]"} {
		c.press(key)
		c.shows(want)
	}
	for _, top := range keymap.Tops() {
		if topView(top.ID) == nil {
			t.Errorf("key %s, %s, leads nowhere", top.Key, top.Name)
		}
	}
}

// TestDeepAndBack: from the list into the job, into a host, to its neighbour,
// and back to that one in the list.
func TestDeepAndBack(t *testing.T) {
	c := walker(t)
	c.press("2", "enter")
	c.shows("Job 118  deb12-lab/14", ">a05 ", "MiB/s, all hosts")
	c.press("s", "s")
	c.shows("sorted by name")
	c.press("g", "enter")
	c.shows("A101/a01", "COMMENCE committed")
	c.press("l", "esc")
	c.shows("Job 118", ">a02 ")
	c.press("esc")
	c.shows("Jobs   1 running")
}

func TestFilterInALongList(t *testing.T) {
	c := walker(t)
	c.press("5", "/")
	c.typeText("state=failed room=A101")
	c.shows("/ state=failed room=A101_", "2 of 48", ">a05")
	c.press("q") // text, not quit
	c.press("backspace", "enter")
	c.shows("/ state=failed room=A101")
	c.press("enter")
	c.shows("A101/a05")
	c.press("esc", "/", "esc")
	c.shows("2 of 48")
}

func TestCommandLine(t *testing.T) {
	c := walker(t)
	c.press(":")
	c.typeText("host a3")
	c.shows(":host a3_")
	c.press("3", "enter")
	c.shows("A101/a33")
	c.press(":")
	c.typeText("room A102")
	c.press("enter")
	c.shows("[A102 8]")
	c.press(":", "up", "up")
	c.shows(":host a33_")
	c.press("esc", ":")
	c.typeText("job 11")
	c.press("tab")
	c.shows(":job 11_")
	c.press("7", "enter")
	c.shows("Job 117", "2 of 2 verified")
	for text, want := range map[string]string{"job 9": `there is no job "9"`, "fly": `there is no command "fly"`, "theme pink": "choose one of: default mono", "host": `there is no host ""`, "code 0": "two letters and four characters"} {
		c.press(":")
		c.typeText(text)
		c.press("enter")
		c.shows(want)
	}
	c.press(":")
	c.typeText("symbols unicode")
	c.press("enter")
	if c.th.ASCII {
		t.Error("symbols unicode changes nothing")
	}
	c.press(":", "q")
	if !c.press("enter") {
		t.Error(":q does not quit")
	}
}

// TestPasteNeverTypes: neither as keys, nor into a field.
func TestPasteNeverTypes(t *testing.T) {
	c := walker(t)
	c.press(":")
	c.paste("q\n")
	if c.command.text != "" || !strings.Contains(c.frame, ":_") {
		t.Errorf("the command line holds pasted text %q", c.command.text)
	}
}
