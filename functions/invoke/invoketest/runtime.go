// Package invoketest runs the binary of a function as Lambda does: it stands in for the Runtime API, hands in
// invocations with a deadline, ends a process that misses it, and measures cold start, invocations and memory.
//
// Use [Build] and [Start], then [Runtime.Invoke].
package invoketest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/test/program"
)

// Build builds the binary of the function in the directory as it is deployed, and returns its path.
func Build(t testing.TB, dir string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "bootstrap")
	if err := program.Function(dir, bin); err != nil {
		t.Fatal(err)
	}
	return bin
}

// Runtime is the Runtime API with one process of the function.
type Runtime struct {
	// Deadline is how long an invocation may take, as the function is told.
	Deadline time.Duration
	// Overtime is how much later the process is ended. Lambda gives none; but here a busy machine may let a process wait
	// for longer than the margin that it keeps, and whether it stops by itself shows all the same.
	Overtime time.Duration

	t       testing.TB
	cmd     *exec.Cmd
	server  *http.Server
	started time.Time // guarded by mu
	next    chan *invocation
	asked   chan struct{} // the process has asked for its first invocation
	exited  chan struct{} // the process has ended; exit is set
	exit    error
	number  int

	mu      sync.Mutex
	init    time.Duration   // guarded by mu
	failure *Failure        // of the start; guarded by mu
	open    *invocation     // handed out and not answered; guarded by mu
	output  strings.Builder // guarded by mu
	said    chan struct{}   // closed when more was written; guarded by mu
}

// invocation is one that is handed in.
type invocation struct {
	id      string
	payload []byte
	due     time.Time
	answer  chan Result
}

// Failure is what a function reports as an error.
type Failure struct {
	Type    string `json:"errorType"`
	Message string `json:"errorMessage"`
}

// Result is how an invocation ended.
type Result struct {
	Body     []byte
	Failure  *Failure // the function returned an error
	Duration time.Duration
	Err      error // the process ended, or missed the deadline and was ended
}

// Start starts the binary with the environment; nothing else of the environment of the test reaches it but what is
// needed to be started.
func Start(t testing.TB, bin string, env map[string]string) *Runtime {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &Runtime{
		Deadline: time.Minute, Overtime: time.Minute, t: t, next: make(chan *invocation), asked: make(chan struct{}), exited: make(chan struct{}),
		said: make(chan struct{}),
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /2018-06-01/runtime/invocation/next", r.serveNext)
	mux.HandleFunc("POST /2018-06-01/runtime/invocation/{id}/response", r.serveAnswer)
	mux.HandleFunc("POST /2018-06-01/runtime/invocation/{id}/error", r.serveAnswer)
	mux.HandleFunc("POST /2018-06-01/runtime/init/error", r.serveInitError)
	r.server = &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	go func() { _ = r.server.Serve(listener) }()

	r.cmd = exec.Command(bin)
	r.cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "TZ=:UTC", "LANG=en_US.UTF-8", "LAMBDA_TASK_ROOT=" + filepath.Dir(bin), "_HANDLER=bootstrap",
		"AWS_LAMBDA_RUNTIME_API=" + listener.Addr().String(), "AWS_LAMBDA_FUNCTION_NAME=test", "AWS_LAMBDA_FUNCTION_VERSION=$LATEST",
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE=256", "AWS_LAMBDA_LOG_GROUP_NAME=test", "AWS_LAMBDA_LOG_STREAM_NAME=test",
		"AWS_EXECUTION_ENV=AWS_Lambda_provided.al2023", "AWS_LAMBDA_INITIALIZATION_TYPE=on-demand",
		"AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test", "AWS_EC2_METADATA_DISABLED=true",
	}
	for name, value := range env {
		r.cmd.Env = append(r.cmd.Env, name+"="+value) // of two, the later counts
	}
	r.cmd.Stdout, r.cmd.Stderr = lines{r}, lines{r}
	r.mu.Lock()
	r.started = time.Now()
	r.mu.Unlock()
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		r.exit = r.cmd.Wait()
		close(r.exited)
	}()
	t.Cleanup(r.stop)
	return r
}

// began is when the process was started.
func (r *Runtime) began() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.started
}

func (r *Runtime) stop() {
	_ = r.cmd.Process.Kill()
	<-r.exited
	_ = r.server.Close()
	if r.t.Failed() {
		r.t.Logf("the function said:\n%s", r.Output())
	}
}

// lines collects what the process writes.
type lines struct{ *Runtime }

func (l lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.said)
	l.said = make(chan struct{})
	return l.output.Write(p)
}

// Said reports whether the process has written the text, and waits a while for it: what it writes reaches us later than
// its answers.
func (r *Runtime) Said(text string) bool {
	timeout := time.After(time.Minute)
	for {
		r.mu.Lock()
		there, more := strings.Contains(r.output.String(), text), r.said
		r.mu.Unlock()
		if there {
			return true
		}
		select {
		case <-more:
		case <-timeout:
			return false
		}
	}
}

// Output is all that the process wrote to its standard streams, which in Lambda is its log.
func (r *Runtime) Output() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.output.String()
}

func (r *Runtime) serveNext(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	if r.init == 0 {
		r.init = time.Since(r.started)
		close(r.asked)
	}
	r.mu.Unlock()
	select {
	case <-req.Context().Done():
		return
	case i := <-r.next:
		r.mu.Lock()
		r.open = i
		r.mu.Unlock()
		h := w.Header()
		h.Set("Content-Type", "application/json")
		h.Set("Lambda-Runtime-Aws-Request-Id", i.id)
		h.Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(i.due.UnixMilli(), 10))
		h.Set("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:us-east-1:123456789012:function:test")
		h.Set("Lambda-Runtime-Trace-Id", "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Parent=9a9197af755a6419;Sampled=0")
		_, _ = w.Write(i.payload)
	}
}

func (r *Runtime) serveAnswer(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	r.mu.Lock()
	i := r.open
	r.open = nil
	r.mu.Unlock()
	if err != nil || i == nil || i.id != req.PathValue("id") {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	result := Result{Body: body}
	if strings.HasSuffix(req.URL.Path, "/error") {
		result = Result{Failure: &Failure{}}
		if err := json.Unmarshal(body, result.Failure); err != nil {
			result.Err = err
		}
	}
	w.WriteHeader(http.StatusAccepted)
	i.answer <- result
}

func (r *Runtime) serveInitError(w http.ResponseWriter, req *http.Request) {
	f := &Failure{}
	_ = json.NewDecoder(req.Body).Decode(f) // what is not understood stays empty
	r.mu.Lock()
	r.failure = f
	r.mu.Unlock()
	w.WriteHeader(http.StatusAccepted)
}

// Init waits until the function is ready and returns how long it took from the start of the process, which is the part
// of a cold start that the code is answerable for.
func (r *Runtime) Init() (time.Duration, error) {
	select {
	case <-r.asked:
	case <-r.exited:
		select {
		case <-r.asked: // it was ready, and ended since
		default:
			return 0, fmt.Errorf("the function ended before it was ready: %w", cause(r.exit))
		}
	case <-time.After(time.Minute): // Lambda waits for 10 seconds, on a machine that has nothing else to do
		return 0, errors.New("the function was not ready after a minute")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.init, nil
}

func cause(err error) error {
	if err == nil {
		return errors.New("exit code 0")
	}
	return err
}

// Invoke invokes the function once and waits for its end.
func (r *Runtime) Invoke(payload any) Result {
	r.t.Helper()
	body, ok := payload.([]byte)
	if !ok {
		var err error
		if body, err = json.Marshal(payload); err != nil {
			r.t.Fatal(err)
		}
	}
	r.number++
	i := &invocation{
		id: fmt.Sprintf("00000000-0000-0000-0000-%012d", r.number), payload: bytes.TrimSpace(body), answer: make(chan Result, 1),
	}
	if _, err := r.Init(); err != nil {
		return Result{Err: err}
	}
	began := time.Now()
	i.due = began.Add(r.Deadline)
	ctx, cancel := context.WithDeadline(context.Background(), i.due.Add(r.Overtime))
	defer cancel()
	select {
	case r.next <- i:
	case <-r.exited:
		return Result{Err: fmt.Errorf("the function has ended: %w", cause(r.exit))}
	case <-ctx.Done():
		return Result{Err: errors.New("the function did not ask for an invocation")}
	}
	select {
	case result := <-i.answer:
		result.Duration = time.Since(began)
		return result
	case <-r.exited:
		select {
		case result := <-i.answer: // it answered, and then ended
			result.Duration = time.Since(began)
			return result
		default:
			return Result{Err: fmt.Errorf("the function ended: %w", cause(r.exit)), Duration: time.Since(began)}
		}
	case <-ctx.Done():
		_ = r.cmd.Process.Kill()
		<-r.exited
		return Result{Err: fmt.Errorf("the function was ended after its deadline of %s and %s more", r.Deadline, r.Overtime), Duration: time.Since(began)}
	}
}

// Memory returns the most memory that the process had so far, in bytes.
func (r *Runtime) Memory() (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("the system does not tell the memory of a process")
}

// enough is how long a function may take until it is ready, on a quiet machine.
const enough = 15 * time.Millisecond

// Ready fails the test if the code adds too much to a cold start: more than five times what is enough on a quiet machine, and
// more than five times as long as the same binary takes here and now to say that it can't start without an environment. It
// is started again and again, at most so many times, and the shortest time counts: what else the machine does can only make
// it longer.
func Ready(t testing.TB, bin string, env map[string]string, times int) {
	t.Helper()
	ready, bare := time.Hour, time.Hour
	for n := 0; n < times && ready > enough; n++ {
		r := Start(t, bin, env)
		took, err := r.Init()
		if err != nil {
			t.Fatal(err)
		}
		_ = r.cmd.Process.Kill()
		<-r.exited
		ready = min(ready, took)

		none := Start(t, bin, nil)
		if _, err := none.Init(); err == nil {
			t.Fatal("it starts without an environment")
		}
		bare = min(bare, time.Since(none.began()))
	}
	t.Logf("ready after %s at best", ready)
	if ready > 5*max(enough, bare) {
		t.Errorf("ready after %s at best, want %s; to say that it can't start it takes %s", ready, enough, bare)
	}
}

// WithDeadlines calls try with one deadline for invocations after the other, until try says nothing. For tests of functions
// that have to stop by themselves in time: the first deadline is as short as a test likes to wait, and where the machine does
// so much else that a function does not even get to what it is to stop at, or not from there to its end, a longer one shows
// the same. What try says at last is a failure. Each call has everything anew.
func WithDeadlines(t *testing.T, shortest time.Duration, try func(t *testing.T, deadline time.Duration) string) {
	t.Helper()
	said := ""
	for _, factor := range []time.Duration{1, 4, 16} {
		deadline := factor * shortest
		if said = try(t, deadline); said == "" || t.Failed() {
			return
		}
		t.Logf("with a deadline of %s: %s", deadline, said)
	}
	t.Error(said)
}
