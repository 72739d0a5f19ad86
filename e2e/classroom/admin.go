package classroom

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// admin talks to one server as an administrator does: through its socket for
// looking, through the labswarm program for acting.
type admin struct {
	binary, stateDir string
	http             *http.Client
}

func newAdmin(binary, stateDir string) *admin {
	sock := filepath.Join(stateDir, "labswarm.sock")
	return &admin{binary: binary, stateDir: stateDir, http: &http.Client{
		Timeout: 10 * time.Second,
		Transport: &http.Transport{
			// One look, one connection: nothing lingers when the server is killed.
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, "unix", sock)
			},
		},
	}}
}

// maxAnswer bounds an answer of the server, in bytes.
const maxAnswer = 16 << 20

// get reads path of the admin socket into v.
func (a *admin) get(ctx context.Context, path string, v any) (err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://labswarm"+path, nil)
	if err != nil {
		return fmt.Errorf("ask server %s: %w", path, err)
	}
	res, err := a.http.Do(req)
	if err != nil {
		return fmt.Errorf("ask server %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, res.Body.Close()) }()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("ask server %s: %w", path, err)
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("ask server %s: %s: %s", path, res.Status, strings.TrimSpace(string(b)))
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("ask server %s: %w", path, err)
	}
	return nil
}

// CommandError is a labswarm command that ended with an error.
type CommandError struct {
	Args   []string
	Code   int    // its exit code
	Output string // what it said, standard error
}

// Error repeats the command and what it said.
func (e *CommandError) Error() string {
	return fmt.Sprintf("labswarm %s: exit code %d: %s", strings.Join(e.Args, " "), e.Code, e.Output)
}

// run runs a labswarm command and returns what it printed.
func (a *admin) run(ctx context.Context, args ...string) ([]byte, error) {
	args = append(args, "--state-dir", a.stateDir)
	cmd := exec.CommandContext(ctx, a.binary, args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		var ee *exec.ExitError
		if errors.As(err, &ee) && ctx.Err() == nil {
			said := strings.TrimSpace(errOut.String())
			if said == "" {
				said = strings.TrimSpace(out.String())
			}
			return nil, &CommandError{Args: args, Code: ee.ExitCode(), Output: said}
		}
		return nil, fmt.Errorf("labswarm %s: %w", strings.Join(args, " "), errors.Join(ctx.Err(), err))
	}
	return out.Bytes(), nil
}
