package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"labswarm/api"
)

func newToken(e *env) *cobra.Command {
	ls := &cobra.Command{Use: "ls", Short: "list the tokens, without their secrets", Args: exact(0), RunE: func(cmd *cobra.Command, _ []string) error {
		c := e.client()
		defer c.Close()
		list, err := c.Tokens(cmd.Context())
		if err != nil {
			return err
		}
		if e.json {
			return e.printJSON(list)
		}
		if len(list) == 0 {
			e.hint("no tokens: labswarm token add NAME --role viewer")
			return nil
		}
		if err := e.printf("%-5s %-20s %-9s %-16s %-17s %s\n", "ID", "NAME", "ROLE", "ROOMS", "LAST USE", "ENDS"); err != nil {
			return err
		}
		for _, t := range list {
			rooms, ends := "all", "never"
			if len(t.Rooms) > 0 {
				rooms = strings.Join(t.Rooms, ",")
			}
			if !t.Expires.IsZero() {
				ends = t.Expires.Local().Format(time.DateTime)
			}
			if err := e.printf("%-5s %-20s %-9s %-16s %-17s %s\n", t.ID, t.Name, t.Role, rooms, ago(t.Used), ends); err != nil {
				return err
			}
		}
		return nil
	}}
	rm := &cobra.Command{Use: "rm ID", Short: "revoke a token; what it has open ends at once", Args: exact(1), RunE: func(cmd *cobra.Command, args []string) error {
		c := e.client()
		defer c.Close()
		if err := c.RemoveToken(cmd.Context(), args[0]); err != nil {
			return err
		}
		if e.json {
			return e.printJSON(map[string]string{"removed": args[0]})
		}
		return e.printf("token %s is void\n", args[0])
	}}
	return group("token", "rights to use this server from other machines", newTokenAdd(e), ls, rm)
}

func newTokenAdd(e *env) *cobra.Command {
	var req api.TokenAdd
	var expires string
	add := &cobra.Command{
		Use: "add NAME --role ROLE", Short: "make a token; prints its secret once", Args: exact(1),
		Long: `Add makes a token for the admin API over the network (serve --admin-listen). NAME says
who or what will hold it. Roles: viewer sees everything; operator runs jobs, too, with
--rooms in these rooms only; admin may do everything but sign, give out keys and make
tokens, which works on the server only.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if req.Role == "" {
				return usage(errors.New("token add needs --role viewer, operator or admin"))
			}
			life, err := parseLife(expires)
			if err != nil {
				return usage(fmt.Errorf("--expires: %w", err))
			}
			req.Name, req.ExpiresS = args[0], int64(life/time.Second)
			c := e.client()
			defer c.Close()
			t, err := c.AddToken(cmd.Context(), req)
			if err != nil {
				return err
			}
			if e.json {
				return e.printJSON(t)
			}
			if err := e.printf("%s\n", t.Secret); err != nil {
				return err
			}
			e.hint("token %s (%s, %s) is shown this once; put it into a file that only its holder reads.", t.ID, t.Name, t.Role)
			if t.Listen == "" {
				e.hint("This server takes no tokens yet: start it with --admin-listen ADDRESS:PORT.")
				return nil
			}
			e.hint("On the other machine:\n  labswarm --server https://%s --token-file FILE --fingerprint %s status", t.Listen, t.Fingerprint)
			return nil
		},
	}
	f := add.Flags()
	f.StringVar(&req.Role, "role", "", "viewer, operator or admin")
	f.StringSliceVar(&req.Rooms, "rooms", nil, "rooms an operator may act in; none = all")
	f.StringVar(&expires, "expires", "90d", "how long it holds, for example 12h, 90d; 0 = until it is removed")
	return add
}

// parseLife reads a duration that may be in days.
func parseLife(text string) (time.Duration, error) {
	if text == "0" {
		return 0, nil
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil {
			return 0, fmt.Errorf("%q is no number of days", text)
		}
		return time.Duration(n) * 24 * time.Hour, nil
	}
	d, err := time.ParseDuration(text)
	if err == nil && d < time.Second {
		err = fmt.Errorf("%s is too short", d)
	}
	return d, err
}
