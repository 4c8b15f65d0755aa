package bucket

import (
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"
)

// Trouble is what a [Proxy] does to a request.
type Trouble int

const (
	// Pass does nothing.
	Pass Trouble = iota
	// Unavailable answers 503 in the server's place, which never sees the request.
	Unavailable
	// Throttle answers 429 in the server's place.
	Throttle
	// Cut closes the connection before the server sees the request: failed and not persisted.
	Cut
	// CutAnswer lets the server do its work and closes the connection in place of the answer: failed but persisted.
	CutAnswer
	// CutBody closes the connection in the middle of the answer's body.
	CutBody
	// Forbid answers 403 in the server's place.
	Forbid
	// Alter changes the first byte of the request's body.
	Alter
	// AlterAnswer changes a byte in the middle of the answer's body.
	AlterAnswer
	// Mute answers nothing until the client gives up.
	Mute
)

// Unreliable returns a decision for [StartProxy] by which, in the long run, one of every n requests meets with trouble of
// some passing kind. The same seed gives the same sequence.
func Unreliable(seed uint64, n int) func(*http.Request) Trouble {
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // dice, not secrets
	return func(*http.Request) Trouble {
		mu.Lock()
		defer mu.Unlock()
		if random.IntN(n) > 0 {
			return Pass
		}
		return Unavailable + Trouble(random.IntN(int(CutBody)))
	}
}

// Proxy stands between a client and a server.
type Proxy struct {
	Endpoint string // http://127.0.0.1:port
}

// StartProxy starts a proxy before the server at endpoint. decide is asked for each request, by several goroutines.
func StartProxy(t testing.TB, endpoint string, decide func(*http.Request) Trouble) *Proxy {
	t.Helper()
	target, err := url.Parse(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	forward := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // the client has signed it
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch decide(r) {
		case Pass:
			forward.ServeHTTP(w, r)
		case Unavailable:
			refuse(w, r, http.StatusServiceUnavailable)
		case Throttle:
			refuse(w, r, http.StatusTooManyRequests)
		case Forbid:
			refuse(w, r, http.StatusForbidden)
		case Alter:
			r.Body = io.NopCloser(&altered{Reader: r.Body})
			forward.ServeHTTP(w, r)
		case Mute:
			<-r.Context().Done()
		case Cut:
			panic(http.ErrAbortHandler)
		case CutAnswer:
			forward.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		case AlterAnswer:
			answer := httptest.NewRecorder()
			forward.ServeHTTP(answer, r)
			for name, values := range answer.Header() {
				w.Header()[name] = values
			}
			w.WriteHeader(answer.Code)
			b := answer.Body.Bytes()
			if len(b) > 0 {
				b[len(b)/2] ^= 0x40
			}
			_, _ = w.Write(b)
		case CutBody:
			answer := httptest.NewRecorder()
			forward.ServeHTTP(answer, r)
			for name, values := range answer.Header() {
				w.Header()[name] = values
			}
			w.WriteHeader(answer.Code)
			b := answer.Body.Bytes()
			_, _ = w.Write(b[:len(b)/2])
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
	}))
	t.Cleanup(server.Close)
	return &Proxy{Endpoint: server.URL}
}

// refuse reads the request, as a server does that is too busy to work, and answers with the status.
func refuse(w http.ResponseWriter, r *http.Request, status int) {
	_, _ = io.Copy(io.Discard, r.Body)
	w.WriteHeader(status)
}

// altered is a body whose first byte is another.
type altered struct {
	io.Reader
	done bool
}

func (a *altered) Read(p []byte) (int, error) {
	n, err := a.Reader.Read(p)
	if n > 0 && !a.done {
		p[0] ^= 0x40
		a.done = true
	}
	return n, err
}
