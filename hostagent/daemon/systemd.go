package daemon

import (
	"context"
	"net"
	"strconv"
	"time"
)

// Systemd tells systemd how the agent is, by the protocol of sd_notify(3). A nil one tells nobody.
type Systemd struct {
	socket string
	every  time.Duration // of the watchdog; 0: there is none
}

// NewSystemd takes from the environment whom to tell; nil if nobody wants to know.
func NewSystemd(env func(string) (string, bool)) *Systemd {
	socket, _ := env("NOTIFY_SOCKET")
	if socket == "" {
		return nil
	}
	s := &Systemd{socket: socket}
	if text, ok := env("WATCHDOG_USEC"); ok {
		if n, err := strconv.ParseInt(text, 10, 64); err == nil && n > 0 {
			s.every = time.Duration(n) * time.Microsecond
		}
	}
	return s
}

// notify sends a state. That it does not arrive is for systemd to notice.
func (s *Systemd) notify(state string) {
	if s == nil {
		return
	}
	name := s.socket
	if name[0] == '@' {
		name = "\x00" + name[1:] // the abstract name space
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return
	}
	defer func() { _ = c.Close() }()
	_, _ = c.Write([]byte(state))
}

// watchdog shows signs of life until ctx ends, as long as alive returns.
func (s *Systemd) watchdog(ctx context.Context, alive func()) {
	if s == nil || s.every == 0 {
		return
	}
	for ctx.Err() == nil {
		alive()
		s.notify("WATCHDOG=1")
		sleep(ctx, s.every/3)
	}
}
