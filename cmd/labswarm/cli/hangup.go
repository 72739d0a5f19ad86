package cli

import (
	"os"
	"os/signal"
	"syscall"
)

// onHangup calls do at every SIGHUP until the returned function is called.
func onHangup(do func()) (stop func()) {
	ch, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(ch, syscall.SIGHUP)
	go func() {
		for {
			select {
			case <-ch:
				do()
			case <-done:
				return
			}
		}
	}()
	return func() {
		signal.Stop(ch)
		close(done)
	}
}
