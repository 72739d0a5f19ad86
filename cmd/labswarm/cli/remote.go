package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"labswarm/api/client"
)

// remote is the server that --server names, for a command line on another
// machine.
type remote struct {
	server, tokenFile, fingerprint string

	client *client.Remote // nil = the socket of --state-dir
}

func (r *remote) flags(cmd *cobra.Command) {
	f := cmd.PersistentFlags()
	f.StringVar(&r.server, "server", os.Getenv("LABSWARM_SERVER"), "server on another machine, https://HOST:PORT (or LABSWARM_SERVER); without it the socket of --state-dir")
	f.StringVar(&r.tokenFile, "token-file", os.Getenv("LABSWARM_TOKEN_FILE"), "file with the token for --server, of labswarm token add (or LABSWARM_TOKEN_FILE)")
	f.StringVar(&r.fingerprint, "fingerprint", "", "key of --server, SHA256:..., instead of the question at the first use")
}

// alone are commands that talk to no server, or are one.
var alone = []string{"serve", "seed", "classroom", "version", "help", "completion", "__complete", "__completeNoDesc"}

// prepare finds the server before a command runs, and pins its key at first
// use.
func (e *env) prepare(cmd *cobra.Command) error {
	top := cmd
	for top.HasParent() && top.Parent().HasParent() {
		top = top.Parent()
	}
	if slices.Contains(alone, top.Name()) {
		if f := cmd.Flags().Lookup("server"); (top.Name() == "serve" || top.Name() == "classroom") && f != nil && f.Changed {
			return e.onServerOnly(cmd.CommandPath())
		}
		return nil // seed has a --server of its own
	}
	if e.remote.server == "" {
		return nil
	}
	addr, err := serverAddr(e.remote.server)
	if err != nil {
		return usage(err)
	}
	token, err := e.readToken()
	if err != nil {
		return err
	}
	pin, err := e.pin(cmd.Context(), addr)
	if err != nil {
		return err
	}
	e.remote.client = &client.Remote{Addr: addr, Token: token, Fingerprint: pin}
	return nil
}

// onServerOnly is the error of what needs the server's own files.
func (e *env) onServerOnly(what string) error {
	return usage(fmt.Errorf("%s works on the server only: it uses files there; log in on %s, or leave out --server (LABSWARM_SERVER) for this machine's own state", what, e.remote.server))
}

// serverAddr reads https://HOST:PORT, or HOST:PORT.
func serverAddr(text string) (string, error) {
	host := text
	if strings.Contains(text, "://") {
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "https" || (u.Path != "" && u.Path != "/") || u.RawQuery != "" || u.User != nil {
			return "", fmt.Errorf("--server %q: write it as https://HOST:PORT", text)
		}
		host = u.Host
	}
	if h, p, err := net.SplitHostPort(host); err != nil || h == "" || p == "" {
		return "", fmt.Errorf("--server %q: write it as https://HOST:PORT, with the port of the server's --admin-listen", text)
	}
	return host, nil
}

func (e *env) readToken() (string, error) {
	path := e.remote.tokenFile
	if path == "" {
		return "", usage(errors.New("--server needs a token: put what `labswarm token add` printed on the server into a file and name it with --token-file"))
	}
	st, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("read token: %w", err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read token: %w", err)
	}
	if st.Mode().IsRegular() && st.Mode().Perm()&0o077 != 0 {
		e.hint("labswarm: others on this machine can read the token in %s: chmod 600 %s", path, path)
	}
	token := strings.TrimSpace(string(raw))
	if !strings.HasPrefix(token, "lsw_") || strings.ContainsAny(token, " \t\r\n") || len(token) > 128 {
		return "", usage(fmt.Errorf("read token %q: want one line, lsw_..., as `labswarm token add` printed it", path))
	}
	return token, nil
}

// pin returns the fingerprint to trust for a server: the known one, or at first
// use the one that a person confirms.
func (e *env) pin(ctx context.Context, addr string) (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("find the list of known servers: %w", err)
	}
	path := filepath.Join(dir, "labswarm", "known_servers")
	known, err := knownServer(path, addr)
	if err != nil {
		return "", err
	}
	given := e.remote.fingerprint
	switch {
	case known != "" && given != "" && known != given:
		return "", &codeError{ExitNotAllowed, fmt.Errorf("--fingerprint %s is not the key that is known for %s, %s: if the server has a new key, take its line out of %s", given, addr, known, path)}
	case known != "":
		return known, nil
	}
	got, err := client.Ask(ctx, addr)
	switch {
	case err != nil:
		return "", err
	case given != "" && got != given:
		return "", &codeError{ExitNotAllowed, &client.WrongKeyError{Addr: addr, Want: given, Got: got}}
	case given == "":
		if err := e.confirmKey(addr, got); err != nil {
			return "", err
		}
	}
	return got, addKnown(path, addr, got)
}

// confirmKey asks whether a key is the server's.
func (e *env) confirmKey(addr, got string) error {
	if !isTerminal(e.in) {
		return usage(fmt.Errorf("the key of %s is not known here: it is %s; compare it with what `labswarm token add` or the server's log says, and add --fingerprint %s", addr, got, got))
	}
	e.hint("The key of %s is not known here. It is\n  %s\n`labswarm token add` and the server's log name it there.", addr, got)
	_, _ = fmt.Fprint(e.err, "Is it the same? Type yes: ") // a closed terminal answers nothing below
	line, err := bufio.NewReader(e.in).ReadString('\n')
	if err != nil || strings.TrimSpace(line) != "yes" {
		return &codeError{ExitNotAllowed, fmt.Errorf("the key of %s was not confirmed: nothing was sent", addr)}
	}
	return nil
}

// knownServer looks an address up, "" = not known. A line is "HOST:PORT
// FINGERPRINT".
func knownServer(path, addr string) (string, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read the list of known servers: %w", err)
	}
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == addr {
			return f[1], nil
		}
	}
	return "", nil
}

func addKnown(path, addr, fingerprint string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("keep the server's key: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("keep the server's key: %w", err)
	}
	_, err = fmt.Fprintf(f, "%s %s\n", addr, fingerprint)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("keep the server's key in %s: %w", path, err)
	}
	return nil
}
