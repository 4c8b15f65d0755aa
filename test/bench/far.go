package main

import (
	"bufio"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"sync"
	"time"
)

// far stands before a server and makes it look as if it were far away: whatever the server says arrives later, and so
// does the first thing that the client says on a new connection, as the handshake takes a round trip. The bandwidth
// stays. It also counts HTTP requests.
type far struct {
	listener net.Listener
	target   string
	delay    time.Duration

	mu       sync.Mutex
	requests map[string]int64 // by kind; guarded by mu
}

func startFar(target string, delay time.Duration) (*far, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	f := &far{listener: l, target: target, delay: delay, requests: map[string]int64{}}
	go f.serve()
	return f, nil
}

func (f *far) address() string { return f.listener.Addr().String() }

func (f *far) close() { _ = f.listener.Close() }

// counted returns the requests since the last call.
func (f *far) counted() map[string]int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := maps.Clone(f.requests)
	clear(f.requests)
	return all
}

func (f *far) serve() {
	for {
		c, err := f.listener.Accept()
		if err != nil {
			return // closed
		}
		go f.connection(c)
	}
}

func (f *far) connection(client net.Conn) {
	defer func() { _ = client.Close() }()
	server, err := net.Dial("tcp", f.target)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	spy, copied := io.Pipe()
	go f.count(spy)
	go func() {
		time.Sleep(f.delay)
		_, _ = io.Copy(io.MultiWriter(server, copied), client)
		_ = copied.Close()
		_ = server.(*net.TCPConn).CloseWrite() //nolint:errcheck,forcetypeassert // Dial("tcp") returns nothing else
	}()
	f.later(client, server)
}

// parcel is something that a server said, and when it arrives.
type parcel struct {
	data []byte
	at   time.Time
}

// queued is how many parcels are on their way at most: 25 ms of more than 1 GB/s.
const queued = 1024

// later copies with a delay. Data that follow each other closely travel at the same time.
func (f *far) later(to io.Writer, from io.Reader) {
	way := make(chan parcel, queued)
	done := make(chan struct{})
	go func() {
		defer close(done)
		broken := false
		for p := range way {
			time.Sleep(time.Until(p.at))
			if !broken {
				_, err := to.Write(p.data)
				broken = err != nil // go on taking, so that the sender ends
			}
		}
	}()
	for {
		buf := make([]byte, 64<<10)
		n, err := from.Read(buf)
		if n > 0 {
			way <- parcel{buf[:n], time.Now().Add(f.delay)}
		}
		if err != nil {
			break
		}
	}
	close(way)
	<-done
}

// count reads the requests that pass.
func (f *far) count(from *io.PipeReader) {
	// Whatever happens here, the traffic goes on.
	defer func() { _, _ = io.Copy(io.Discard, from) }()
	r := bufio.NewReader(from)
	for {
		q, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		f.mu.Lock()
		f.requests[kindOf(q)]++
		f.mu.Unlock()
		if _, err := io.Copy(io.Discard, q.Body); err != nil && !errors.Is(err, io.EOF) {
			return
		}
	}
}

// kindOf names a request as price lists do: LIST is a GET of a bucket.
func kindOf(q *http.Request) string {
	query := q.URL.Query()
	if q.Method == http.MethodGet && (query.Has("list-type") || query.Has("versions") || query.Has("uploads")) {
		return "LIST"
	}
	return q.Method
}
