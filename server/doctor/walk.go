package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/pin/tftp/v3"

	"labswarm/api"
)

// maxBoot bounds what the walk reads of one file, bytes.
const maxBoot = 256 << 20

// checkWalk goes the way of a PC that nobody knows, TFTP and then HTTP: it must get the loaders that all PCs get, and nothing that
// leads to the agent. The DHCP part of the way is checkDHCP's probe.
func checkWalk(ctx context.Context, cfg *Config) []api.Check {
	if !cfg.Running {
		return []api.Check{ok("walk", "not done: no server runs")}
	}
	var loader BootFile
	for _, f := range cfg.Files {
		if f.Name == "shimx64.efi" {
			loader = f
		}
	}
	begun := time.Now()
	var faults []string
	bad := func(format string, a ...any) { faults = append(faults, fmt.Sprintf(format, a...)) }
	if raw, err := getTFTP(cfg, loader.Name); err != nil {
		bad("TFTP %s: %v", loader.Name, err)
	} else if !bytes.Equal(raw, loader.Served) {
		bad("TFTP %s: %d bytes that are not the file", loader.Name, len(raw))
	}
	tftpTook := time.Since(begun)
	begun = time.Now()
	base := "http://" + net.JoinHostPort(cfg.IP.String(), strconv.Itoa(cfg.HTTPPort))
	// shim asks with two slashes; a redirect would end the boot.
	if status, raw, err := getHTTP(ctx, base+"//"+loader.Name); err != nil {
		bad("HTTP //%s: %v", loader.Name, err)
	} else if status != http.StatusOK || !bytes.Equal(raw, loader.Served) {
		bad("HTTP //%s: status %d, %d bytes that are not the file", loader.Name, status, len(raw))
	}
	httpTook := time.Since(begun)
	faults = append(faults, unarmed(ctx, cfg, base)...)
	if len(faults) > 0 {
		return []api.Check{fail("walk", strings.Join(faults, "; "), "open udp 69 and tcp 80 in this machine's firewall; `labswarm events` and the log say more")}
	}
	return []api.Check{ok("walk", "an unknown PC gets %s (%d KiB) by TFTP in %.1f s and by HTTP in %.1f s, and nothing that leads to the agent",
		loader.Name, len(loader.Served)>>10, tftpTook.Seconds(), httpTook.Seconds())}
}

// unarmed tries to get what only a PC with a job may have.
func unarmed(ctx context.Context, cfg *Config, base string) (faults []string) {
	bad := func(format string, a ...any) { faults = append(faults, fmt.Sprintf(format, a...)) }
	mac := NewMAC()
	status, script, err := getHTTP(ctx, fmt.Sprintf("%s/boot.ipxe?mac=%s&uuid=%s", base, mac, "d0c70000-0000-4000-8000-"+strings.ReplaceAll(mac.String(), ":", "")))
	if err != nil || status != http.StatusOK {
		bad("the boot script: status %d, %v", status, err)
	}
	if bytes.Contains(script, []byte("vmlinuz")) || bytes.Contains(script, []byte("initrd")) {
		bad("an unknown PC is sent to the agent")
	}
	for _, f := range cfg.Files {
		if !strings.HasPrefix(f.Name, "initrd") && !strings.HasPrefix(f.Name, "vmlinuz") {
			continue
		}
		if status, raw, err := getHTTP(ctx, base+"/"+f.Name); err == nil && status == http.StatusOK {
			bad("an unknown PC gets %s by HTTP (%d bytes)", f.Name, len(raw))
		}
		if raw, err := getTFTP(cfg, f.Name); err == nil {
			bad("an unknown PC gets %s by TFTP (%d bytes)", f.Name, len(raw))
		}
	}
	return faults
}

// limited keeps a stranger's answer small.
type limited struct{ bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	if l.Len()+len(p) > maxBoot {
		return 0, errors.New("the answer has no end")
	}
	return l.Buffer.Write(p)
}

func getTFTP(cfg *Config, name string) ([]byte, error) {
	c, err := tftp.NewClient(net.JoinHostPort(cfg.IP.String(), strconv.Itoa(cfg.TFTPPort)))
	if err != nil {
		return nil, err
	}
	c.SetTimeout(time.Second)
	c.SetRetries(2)
	c.SetBlockSize(1400)
	wt, err := c.Receive(name, "octet")
	if err != nil {
		return nil, err
	}
	var b limited
	_, err = wt.WriteTo(&b)
	return b.Bytes(), err
}

func getHTTP(ctx context.Context, url string) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, err
	}
	tr := &http.Transport{DisableKeepAlives: true}
	c := &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := c.Do(req)
	if err != nil {
		return 0, nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxBoot))
	return res.StatusCode, raw, errors.Join(err, res.Body.Close())
}
