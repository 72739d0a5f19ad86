package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"labswarm/api"
	"labswarm/api/client"
)

func newReport(e *env) *cobra.Command {
	return group("report", "kept reports of jobs", &cobra.Command{Use: "ls", Short: "the reports, the newest first; `job report JOB --format html -o FILE` writes one", Args: exact(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := e.client()
			defer c.Close()
			list, err := c.Reports(cmd.Context())
			if err != nil {
				return err
			}
			if e.json {
				return e.printJSON(list)
			}
			if len(list) == 0 {
				e.hint("no job has ended yet")
			}
			for _, r := range list {
				if err := e.printf("%5d  %s  %-8s %d of %d  room %s  %s\n", r.Job, r.Created.Local().Format(time.DateTime), strings.ToUpper(r.Result), r.Ready, r.Hosts, orDash(r.Room), r.Image); err != nil {
					return err
				}
			}
			return nil
		}})
}

// reportFile is --format and --output of `job report`.
type reportFile struct{ format, output string }

func (r *reportFile) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&r.format, "format", "", "json, csv (a line per PC), md (for people), html (with plots, in one file)")
	cmd.Flags().StringVarP(&r.output, "output", "o", "", "file to write, instead of standard output; without --format its ending says the format")
}

// wanted reports whether a document is asked for rather than the summary.
func (r *reportFile) wanted() bool { return r.format != "" || r.output != "" }

// write fetches a document and writes it, a file as a whole or not at all.
func (r *reportFile) write(cmd *cobra.Command, e *env, c *client.Client, job uint64) error {
	if r.format == "" {
		r.format = strings.TrimPrefix(filepath.Ext(r.output), ".")
	}
	doc, err := c.Rendered(cmd.Context(), job, r.format)
	if err != nil {
		return err
	}
	if r.output == "" {
		_, err := io.WriteString(e.out, doc.Text) // the server took out what could drive a terminal
		return err
	}
	return writeWhole(r.output, doc)
}

func writeWhole(path string, doc api.Rendered) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".labswarm-report-*")
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	_, err = f.WriteString(doc.Text)
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write report: %w", err), os.Remove(f.Name()))
	}
	return nil
}
