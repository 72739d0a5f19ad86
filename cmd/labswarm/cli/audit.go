package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"labswarm/api"
	"labswarm/api/client"
)

const auditPage = 500

// auditHead is the first line of an export: where the chain of the lines below
// begins and ends.
type auditHead struct {
	Type string        `json:"message_type"` // "audit_export"
	Base api.AuditLink `json:"base"`
	Head api.AuditLink `json:"head"`
}

func newAudit(e *env) *cobra.Command {
	n := 50
	ls := &cobra.Command{Use: "ls [-n N]", Short: "show who did what, or was refused", Args: exact(0), RunE: func(cmd *cobra.Command, _ []string) error {
		c := e.client()
		defer c.Close()
		end, err := c.Audit(cmd.Context(), 1<<62, 1)
		if err != nil {
			return err
		}
		from := end.Base.Seq
		if last := end.Head.Seq; n > 0 && last > uint64(n) {
			from = max(from, last-uint64(n))
		}
		if end.Head.Seq == from && !e.json {
			e.hint("the audit log is empty")
		}
		_, err = eachAudit(cmd.Context(), c, from, func(r api.AuditRecord) error {
			if e.json {
				return e.printLine(r)
			}
			return e.printf("%s\n", auditLine(r))
		})
		return err
	}}
	ls.Flags().IntVarP(&n, "number", "n", n, "how many of the newest; 0 = all")

	export := &cobra.Command{
		Use: "export FILE", Short: "write the whole log, one JSON object a line; - = standard output", Args: exact(1),
		Long: `Export writes the whole audit log. Its first line says where the chain begins and ends;
each record holds the SHA-256 of the one before. "labswarm audit verify FILE" follows it.`,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			c := e.client()
			defer c.Close()
			if args[0] == "-" {
				return exportAudit(cmd.Context(), c, e.out)
			}
			f, err := os.OpenFile(args[0], os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if err != nil {
				return fmt.Errorf("export the audit log: %w", err)
			}
			w := bufio.NewWriter(f)
			err = exportAudit(cmd.Context(), c, w)
			return errors.Join(err, w.Flush(), f.Sync(), f.Close())
		},
	}
	return group("audit", "the log of who did what", ls, export, newAuditVerify(e))
}

func newAuditVerify(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "verify [FILE]", Short: "check that no record was changed or taken out; of the server's log, or of an export", Args: cobra.MaximumNArgs(1),
		Long: `Verify follows the chain of hashes from the oldest record that is kept to the newest. It
prints the newest hash: whoever writes that down elsewhere can tell later that the log
was not replaced as a whole.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			var end, want api.AuditLink
			var count int
			var err error
			if len(args) == 1 {
				end, want, count, err = verifyFile(args[0])
			} else {
				end, want, count, err = e.verifyServer(cmd.Context())
			}
			if err == nil && end != want {
				err = fmt.Errorf("audit log: it ends with record %d, but record %d was the newest: the end is missing", end.Seq, want.Seq)
			}
			if err != nil {
				return err
			}
			if e.json {
				return e.printJSON(map[string]any{"ok": true, "records": count, "head": end})
			}
			return e.printf("%d records, the chain is whole; record %d is the newest, hash %s\n", count, end.Seq, orDash(end.Hash))
		},
	}
}

func (e *env) verifyServer(ctx context.Context) (end, want api.AuditLink, count int, err error) {
	c := e.client()
	defer c.Close()
	first, err := c.Audit(ctx, 0, 1)
	if err != nil {
		return end, want, 0, err
	}
	end = first.Base
	want, err = eachAudit(ctx, c, end.Seq, func(r api.AuditRecord) error {
		count++
		end, err = api.CheckAudit(end, []api.AuditRecord{r})
		return err
	})
	return end, want, count, err
}

// eachAudit reads the log after a number to its end, and returns the end that
// the server named last.
func eachAudit(ctx context.Context, c *client.Client, after uint64, fn func(api.AuditRecord) error) (api.AuditLink, error) {
	for {
		p, err := c.Audit(ctx, after, auditPage)
		if err != nil {
			return p.Head, err
		}
		for _, r := range p.Records {
			if err := fn(r); err != nil {
				return p.Head, err
			}
			after = r.Seq
		}
		if len(p.Records) < auditPage {
			return p.Head, nil
		}
	}
}

func exportAudit(ctx context.Context, c *client.Client, w io.Writer) error {
	enc := json.NewEncoder(w)
	first, err := c.Audit(ctx, 0, 1)
	if err != nil {
		return err
	}
	if err := enc.Encode(auditHead{Type: "audit_export", Base: first.Base, Head: first.Head}); err != nil {
		return err
	}
	_, err = eachAudit(ctx, c, first.Base.Seq, func(r api.AuditRecord) error {
		if r.Seq > first.Head.Seq { // came in meanwhile
			return nil
		}
		return enc.Encode(r)
	})
	return err
}

func verifyFile(path string) (end, want api.AuditLink, count int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return end, want, 0, fmt.Errorf("verify the audit log: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	dec := json.NewDecoder(bufio.NewReader(f))
	var head auditHead
	if err := dec.Decode(&head); err != nil || head.Type != "audit_export" {
		return end, want, 0, fmt.Errorf("verify %s: it does not begin as an export of the audit log", path)
	}
	for end = head.Base; ; count++ {
		var r api.AuditRecord
		switch err := dec.Decode(&r); {
		case errors.Is(err, io.EOF):
			return end, head.Head, count, nil
		case err != nil:
			return end, head.Head, count, fmt.Errorf("verify %s: record after %d: %w", path, end.Seq, err)
		}
		if end, err = api.CheckAudit(end, []api.AuditRecord{r}); err != nil {
			return end, head.Head, count, err
		}
	}
}

func auditLine(r api.AuditRecord) string {
	how := fmt.Sprintf("%d", r.Status)
	switch {
	case r.Status == 0:
		how = "INTERRUPTED"
	case r.Code != "":
		how = fmt.Sprintf("%d %s: %s", r.Status, r.Code, r.Text)
	}
	return fmt.Sprintf("%6d %s  %s (%s)  %s %s  %s", r.Seq, r.Time.Local().Format(time.DateTime), r.Who, r.From, r.Method, r.Path, how)
}
