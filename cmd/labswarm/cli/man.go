package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"labswarm/tui/keymap"
)

// newMan prints the manual page, made from the commands themselves.
func newMan(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "man", Short: "print the manual page (labswarm man | man -l -)", Args: exact(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return writeMan(e.out, cmd.Root()) },
	}
}

// writeMan writes labswarm(1) in the man macros (groff_man(7)).
func writeMan(w io.Writer, root *cobra.Command) error {
	var b strings.Builder
	b.WriteString(".TH LABSWARM 1 \"\" \"labswarm\" \"User Commands\"\n.SH NAME\nlabswarm \\- " + roff(root.Short) + "\n")
	b.WriteString(".SH SYNOPSIS\n.B labswarm\n[\\fICOMMAND\\fR] [\\fIFLAGS\\fR]\n.SH DESCRIPTION\n")
	manText(&b, root.Long)
	b.WriteString(".SH FLAGS OF ALL COMMANDS\n")
	manFlags(&b, root.PersistentFlags())
	b.WriteString(".SH COMMANDS\n")
	manCommands(&b, root)
	b.WriteString(".SH CONSOLE\nOn a terminal, labswarm without a command opens the console. Its keys:\n")
	seen := map[string]bool{}
	for _, k := range keymap.Default() {
		if line := k.Show + k.Long; !seen[line] {
			seen[line] = true
			fmt.Fprintf(&b, ".TP\n.B %s\n%s\n", roff(k.Show), roff(k.Long))
		}
	}
	b.WriteString(".SH EXIT STATUS\n")
	for _, c := range exitCodes() {
		fmt.Fprintf(&b, ".TP\n.B %d\n%s\n", c.code, roff(c.text))
	}
	b.WriteString(".SH ENVIRONMENT\n.TP\n.B LABSWARM_STATE_DIR\nfolder of the server's state\n.TP\n.B NO_COLOR\nno colour\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// manCommands writes a command's children that do something, in order.
func manCommands(b *strings.Builder, cmd *cobra.Command) {
	for _, c := range cmd.Commands() {
		if c.Hidden || c.Name() == "help" || c.Name() == "completion" {
			continue
		}
		if c.Runnable() {
			fmt.Fprintf(b, ".SS %s\n", roff(strings.TrimSuffix(c.UseLine(), " [flags]")))
			manText(b, first(c.Long, c.Short))
			manFlags(b, c.LocalNonPersistentFlags())
		}
		manCommands(b, c)
	}
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func manText(b *strings.Builder, text string) {
	for i, para := range strings.Split(strings.TrimSpace(text), "\n\n") {
		if i > 0 {
			b.WriteString(".PP\n")
		}
		b.WriteString(roff(para) + "\n")
	}
}

func manFlags(b *strings.Builder, flags *pflag.FlagSet) {
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		name, usage := pflag.UnquoteUsage(f)
		if name != "" {
			name = " \\fI" + roff(name) + "\\fR"
		}
		fmt.Fprintf(b, ".TP\n\\fB\\-\\-%s\\fR%s\n%s", roff(f.Name), name, roff(usage))
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0" && f.DefValue != "[]" && f.DefValue != "0s" {
			fmt.Fprintf(b, " (default %s)", roff(f.DefValue))
		}
		b.WriteString("\n")
	})
}

// roff protects text from the formatter: backslashes, hyphens that are typed,
// and lines that would begin with a control character.
func roff(text string) string {
	text = strings.ReplaceAll(text, `\`, `\e`)
	text = strings.ReplaceAll(text, "-", `\-`)
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, ".") || strings.HasPrefix(l, "'") {
			lines[i] = `\&` + l
		}
	}
	return strings.Join(lines, "\n")
}
