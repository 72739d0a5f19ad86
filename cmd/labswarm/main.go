// Command labswarm is the server, the command line and the console.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"labswarm/cmd/labswarm/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
