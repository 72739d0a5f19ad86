package cli

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"labswarm/api"
	"labswarm/api/client"
)

// completeLimit bounds a question to the server behind the tab key. No answer
// means no proposal, never an error in the middle of a command line.
const completeLimit = 300 * time.Millisecond

// things are the names that can be proposed.
type things func(ctx context.Context, c *client.Client) ([]string, error)

// completions gives every argument and flag that names something of the
// server's its proposals: by the placeholder in a command's Use line, and by the
// flag's name.
func (e *env) completions(root *cobra.Command) {
	for _, cmd := range root.Commands() {
		e.completions(cmd)
	}
	if list := e.argThings(root); list != nil && root.ValidArgsFunction == nil {
		root.ValidArgsFunction = func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) >= len(list) {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return e.propose(cmd, list[len(args)])
		}
	}
	for flag, ask := range map[string]things{"room": roomNames, "host": hostNames, "hosts": hostNames, "image": imageNames, "base": imageNames, "job": jobNumbers} {
		if root.Flags().Lookup(flag) == nil {
			continue
		}
		err := root.RegisterFlagCompletionFunc(flag, func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			return e.propose(cmd, ask)
		})
		if err != nil { // the flag has its own
			continue
		}
	}
}

// argThings reads a Use line: what each of its arguments names, nil when none is
// something of the server's.
func (e *env) argThings(cmd *cobra.Command) []things {
	var out []things
	known := false
	for _, w := range strings.Fields(cmd.Use)[1:] {
		if strings.HasPrefix(strings.Trim(w, "[("), "-") {
			break
		}
		ask := argThing(cmd, strings.Trim(w, "[]()."))
		known = known || ask != nil
		out = append(out, ask)
	}
	if !known {
		return nil
	}
	return out
}

func argThing(cmd *cobra.Command, word string) things {
	group := ""
	if cmd.Parent() != nil {
		group = cmd.Parent().Name()
	}
	switch word {
	case "ROOM":
		return roomNames
	case "HOST":
		return hostNames
	case "JOB":
		return jobNumbers
	case "NAME[/VERSION", "NAME/VERSION", "A", "B":
		return imageNames
	case "NAME":
		switch {
		case group == "host" && cmd.Name() != "add":
			return hostNames
		case group == "image" && cmd.Name() == "capture":
			return imageNames
		}
	}
	return nil
}

// propose asks the server.
func (e *env) propose(cmd *cobra.Command, ask things) ([]string, cobra.ShellCompDirective) {
	if ask == nil {
		return nil, cobra.ShellCompDirectiveDefault
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completeLimit)
	defer cancel()
	c := e.client()
	defer c.Close()
	names, err := ask(ctx, c)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	for i := range names {
		names[i] = clean(names[i])
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func roomNames(ctx context.Context, c *client.Client) (out []string, _ error) {
	rooms, err := c.Rooms(ctx)
	for _, r := range rooms {
		out = append(out, r.Name+"\t"+strconv.Itoa(len(r.Hosts))+" hosts")
	}
	return out, err
}

func hostNames(ctx context.Context, c *client.Client) (out []string, _ error) {
	hosts, err := c.Hosts(ctx)
	for i := range hosts {
		out = append(out, hosts[i].Name+"\t"+hosts[i].Room)
	}
	return out, err
}

func imageNames(ctx context.Context, c *client.Client) (out []string, _ error) {
	images, err := c.Images(ctx)
	for i := range images {
		out = append(out, images[i].Name+"/"+images[i].Version)
	}
	return out, err
}

func jobNumbers(ctx context.Context, c *client.Client) (out []string, _ error) {
	jobs, err := c.Jobs(ctx)
	for i := range jobs {
		out = append(out, strconv.FormatUint(jobs[i].ID, 10)+"\t"+about(&jobs[i]))
	}
	return out, err
}

// about is a job in a few words.
func about(j *api.Job) string {
	state := j.Result
	if state == "" {
		state = "running"
	}
	return strings.TrimSpace(j.Image + " " + j.Room + " " + state)
}
