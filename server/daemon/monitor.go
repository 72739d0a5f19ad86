package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"labswarm/server/config"
	"labswarm/server/httpapi"
)

// openMonitor binds the address of metrics.listen, if there is one.
func (s *server) openMonitor(ctx context.Context) error {
	if s.cfg.MetricsListen == "" {
		return nil
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", s.cfg.MetricsListen)
	if err != nil {
		return &config.Error{Err: fmt.Errorf("bind --metrics-listen %s: %w", s.cfg.MetricsListen, err)}
	}
	s.monitor = l
	s.onClose(l.Close)
	return nil
}

// serveMonitor answers health and figures over TCP: nothing else, and nothing secret.
func (s *server) serveMonitor(ctx context.Context, svc httpapi.Health) error {
	if s.monitor == nil {
		return nil
	}
	srv := &http.Server{Handler: httpapi.Monitor(svc, s.log.With("part", "monitor")), ReadTimeout: 10 * time.Second, WriteTimeout: 15 * time.Second, MaxHeaderBytes: 8 << 10}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(s.monitor); ctx.Err() == nil && !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
