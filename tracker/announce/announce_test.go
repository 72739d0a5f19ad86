package announce

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/anacrolix/torrent/bencode"
	"github.com/google/go-cmp/cmp"
)

var hash = [20]byte([]byte("\x00\xff& =%+;infohash...."))

// fixed is a directory with one swarm.
type fixed []netip.AddrPort

func (f fixed) Peers(ih [20]byte, _ netip.AddrPort, want int) ([]netip.AddrPort, bool) {
	return f[:min(want, len(f))], ih == hash
}

func (f fixed) Counts(ih [20]byte) (Counts, bool) {
	return Counts{Complete: 1, Incomplete: 2, Downloaded: 3}, ih == hash
}

var peers = fixed{
	netip.MustParseAddrPort("192.0.2.1:7441"),
	netip.MustParseAddrPort("[::ffff:192.0.2.2]:258"),
	netip.MustParseAddrPort("[2001:db8::1]:7441"),
}

// query returns a good announce with changes; an empty value removes the key.
func query(changes ...string) string {
	v := url.Values{"info_hash": {string(hash[:])}, "peer_id": {"-XX0001-abcdefghijkl"}, "port": {"6881"},
		"uploaded": {"0"}, "downloaded": {"0"}, "left": {"1000"}, "compact": {"1"}}
	for i := 0; i < len(changes); i += 2 {
		if v.Set(changes[i], changes[i+1]); changes[i+1] == "" {
			v.Del(changes[i])
		}
	}
	return v.Encode()
}

// ask sends a request and decodes the answer.
func ask(t *testing.T, h *Handler, path, remote string) map[string]any {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.RemoteAddr = remote
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		t.Fatalf("status %d; want 200", w.Code)
	}
	var m map[string]any
	if err := bencode.Unmarshal(w.Body.Bytes(), &m); err != nil {
		t.Fatalf("answer %q: %v", w.Body, err)
	}
	return m
}

func handler() *Handler { return New(peers, slog.New(slog.DiscardHandler)) }

func TestAnnounce(t *testing.T) {
	m := ask(t, handler(), "/announce?"+query(), "198.51.100.9:40000")
	want := map[string]any{
		"interval": int64(30), "min interval": int64(10), "complete": int64(1), "incomplete": int64(3),
		"peers":  "\xc0\x00\x02\x01\x1d\x11\xc0\x00\x02\x02\x01\x02",
		"peers6": "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x1d\x11",
	}
	if d := cmp.Diff(want, m); d != "" {
		t.Errorf("answer (-want +got):\n%s", d)
	}
}

func TestAnnounceDetails(t *testing.T) {
	for _, c := range []struct {
		name    string
		changes []string
		remote  string
		peers   int // bytes of the IPv4 list
		failure string
	}{
		{"numwant", []string{"numwant", "1"}, "198.51.100.9:1", 6, ""},
		{"numwant 0", []string{"numwant", "0"}, "198.51.100.9:1", 0, ""},
		{"numwant -1 is the default", []string{"numwant", "-1"}, "198.51.100.9:1", 12, ""},
		{"stopped wants nobody", []string{"event", "stopped"}, "198.51.100.9:1", 0, ""},
		{"nobody is told of himself", []string{"port", "7441"}, "192.0.2.1:1", 6, ""},
		{"own address claimed", []string{"ip", "198.51.100.9"}, "198.51.100.9:1", 12, ""},
		{"other address claimed", []string{"ip", "198.51.100.8"}, "198.51.100.9:1", 0, "the announced address"},
		{"unknown hash", []string{"info_hash", "aaaaaaaaaaaaaaaaaaaa"}, "198.51.100.9:1", 0, "unknown info_hash"},
		{"short hash", []string{"info_hash", "aaa"}, "198.51.100.9:1", 0, "info_hash missing"},
		{"no peer id", []string{"peer_id", ""}, "198.51.100.9:1", 0, "peer_id missing"},
		{"no port", []string{"port", ""}, "198.51.100.9:1", 0, "port missing"},
		{"port 0", []string{"port", "0"}, "198.51.100.9:1", 0, "port missing"},
		{"port too big", []string{"port", "65536"}, "198.51.100.9:1", 0, "port missing"},
		{"no left", []string{"left", ""}, "198.51.100.9:1", 0, "left missing"},
		{"negative left", []string{"left", "-1"}, "198.51.100.9:1", 0, "left missing"},
		{"strange event", []string{"event", "started\r\n"}, "198.51.100.9:1", 0, "unknown event"},
		{"long query", []string{"key", strings.Repeat("k", maxQuery)}, "198.51.100.9:1", 0, "query longer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := ask(t, handler(), "/announce?"+query(c.changes...), c.remote)
			reason, _ := m["failure reason"].(string)
			if (c.failure == "") != (reason == "") || !strings.HasPrefix(reason, c.failure) {
				t.Fatalf("failure %q; want %q", reason, c.failure)
			}
			if got, _ := m["peers"].(string); len(got) != c.peers {
				t.Errorf("peers %q; want %d bytes", got, c.peers)
			}
		})
	}
}

func TestDoubleKey(t *testing.T) {
	if _, err := ParseAnnounce(query() + "&port=7"); err == nil {
		t.Error("two ports were accepted")
	}
}

// TestScrape follows plain clients through the counts.
func TestScrape(t *testing.T) {
	h := handler()
	steps := []struct {
		changes []string
		remote  string
		want    string
	}{
		{nil, "198.51.100.9:1", "1 3 3"},
		{nil, "198.51.100.8:1", "1 4 3"},
		{[]string{"event", "completed", "left", "0"}, "198.51.100.9:1", "2 3 4"},
		{[]string{"event", "completed", "left", "0"}, "198.51.100.9:1", "2 3 4"},
		{[]string{"event", "stopped"}, "198.51.100.8:1", "2 2 4"},
	}
	path := "/scrape?" + url.Values{"info_hash": {string(hash[:]), "aaaaaaaaaaaaaaaaaaaa"}}.Encode()
	for i, s := range steps {
		ask(t, h, "/announce?"+query(s.changes...), s.remote)
		files := ask(t, h, path, s.remote)["files"].(map[string]any)
		f := files[string(hash[:])].(map[string]any)
		if got := fmt.Sprint(f["complete"], f["incomplete"], f["downloaded"]); got != s.want || len(files) != 1 {
			t.Errorf("step %d: %s in %d files; want %s in 1", i, got, len(files), s.want)
		}
	}
	h.Forget(hash)
	f := ask(t, h, path, "198.51.100.9:1")["files"].(map[string]any)[string(hash[:])].(map[string]any)
	if got := fmt.Sprint(f["complete"], f["incomplete"], f["downloaded"]); got != "1 2 3" {
		t.Errorf("after Forget: %s; want the directory's own 1 2 3", got)
	}
	if m := ask(t, h, "/scrape", "198.51.100.9:1"); m["failure reason"] == nil {
		t.Errorf("scrape of everything = %v; want a failure", m)
	}
}

func TestOnlyGet(t *testing.T) {
	w := httptest.NewRecorder()
	handler().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/announce", strings.NewReader(query())))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: status %d; want 405", w.Code)
	}
	w = httptest.NewRecorder()
	handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	if w.Code != http.StatusNotFound {
		t.Errorf("GET /: status %d; want 404", w.Code)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(query())
	f.Add(query("event", "stopped", "numwant", "5", "ip", "::1"))
	f.Add("info_hash=%00%ff&info_hash=aaaaaaaaaaaaaaaaaaaa;port=1")
	f.Fuzz(func(t *testing.T, raw string) {
		a, err := ParseAnnounce(raw)
		if err == nil && (a.Port == 0 || a.Left < 0 || a.Want < 0 || a.Want > maxWant) {
			t.Errorf("accepted %+v", a)
		}
		hs, err := ParseScrape(raw)
		if err == nil && (len(hs) == 0 || len(hs) > maxSwarms) {
			t.Errorf("accepted %d hashes", len(hs))
		}
	})
}

// TestPlainClientsMeet: they are told of each other, as long as they are there.
func TestPlainClientsMeet(t *testing.T) {
	h := handler()
	ask(t, h, "/announce?"+query(), "198.51.100.7:40000")
	const first = "\xc6\x33\x64\x07\x1a\xe1"
	for i, c := range []struct {
		query string
		want  bool
	}{
		{query(), true},
		{query("numwant", "3"), false}, // the directory comes first
	} {
		m := ask(t, h, "/announce?"+c.query, "198.51.100.8:40000")
		if got := strings.Contains(fmt.Sprint(m["peers"]), first); got != c.want {
			t.Errorf("case %d: told of the first client: %v; want %v", i, got, c.want)
		}
	}
	ask(t, h, "/announce?"+query("event", "stopped"), "198.51.100.7:40000")
	if m := ask(t, h, "/announce?"+query(), "198.51.100.8:40000"); strings.Contains(fmt.Sprint(m["peers"]), first) {
		t.Error("told of a client that has left")
	}
}
