package bucket

import (
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Line is how one connection fares; the zero value is a good one.
type Line struct {
	Delay time.Duration // before each piece of 16 KiB, in either direction
	After int64         // bytes, of both directions together, after which Then happens; 0: at once
	Then  End
}

// End is what becomes of a connection.
type End int

const (
	// Lasts is the good case.
	Lasts End = iota
	// Silent keeps it open and moves nothing any more: half open.
	Silent
	// Closed cuts it.
	Closed
)

// StartLines starts a proxy before the server at endpoint that works on connections and knows nothing of requests.
// decide is asked for each connection, by several goroutines.
func StartLines(t testing.TB, endpoint string, decide func() Line) *Proxy {
	t.Helper()
	target, err := url.Parse(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	over := make(chan struct{})
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { (&line{Line: decide(), over: over}).run(c, target.Host) })
		}
	})
	t.Cleanup(func() {
		close(over)
		_ = l.Close()
		running.Wait()
	})
	return &Proxy{Endpoint: "http://" + l.Addr().String()}
}

// line is one connection.
type line struct {
	Line
	over  <-chan struct{}
	moved atomic.Int64
}

func (l *line) run(client net.Conn, target string) {
	defer func() { _ = client.Close() }()
	server, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	ended := make(chan struct{}, 2)
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
		both.Go(func() {
			l.move(way[0], way[1])
			ended <- struct{}{}
		})
	}
	select {
	case <-ended:
	case <-l.over:
	}
	_ = client.Close()
	_ = server.Close()
	both.Wait()
}

// move moves bytes one way until the connection ends.
func (l *line) move(from, to net.Conn) {
	buf := make([]byte, 16<<10)
	for {
		if l.Then != Lasts && l.moved.Load() >= l.After {
			if l.Then == Silent {
				<-l.over
			}
			return
		}
		n, err := from.Read(buf)
		if n > 0 {
			l.moved.Add(int64(n))
			if l.Delay > 0 {
				select {
				case <-time.After(l.Delay):
				case <-l.over:
					return
				}
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
