// Command coldstart measures how long each function takes from the start of its process to its first question for an
// invocation: the part of a cold start that its code is answerable for. The binaries are built as they are deployed and
// started against a stub of Lambda's Runtime API, one after the other, on this machine's processor:
//
//	go run ./test/coldstart            a table: median, least and greatest of 50 starts, in milliseconds
//	go run ./test/coldstart -limit 0   the same, whatever comes of it
//
// It ends with code 1 if a median is over the limit of 15 ms. On a machine that does something else meanwhile it says nothing.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/btcdecoded/holdfast/functions/environment"
	"github.com/btcdecoded/holdfast/test/program"
)

func main() {
	times := flag.Int("n", 50, "starts of each function")
	limit := flag.Float64("limit", 15, "milliseconds that a median may take; 0: any")
	flag.Parse()
	if err := run(os.Stdout, *times, *limit); err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		os.Exit(1) //nolint:forbidigo // the end of a program
	}
}

// function is one to start: its directory below functions, and the environment without which it does not.
type function struct {
	name, program string
	env           any
}

func functions() []function {
	cloud := environment.Cloud{State: "state", Trust: "/holdfast/trust", Signer: "/holdfast/signer", Repository: "s3://bucket?region=us-east-1"}
	const topic, queue = "arn:aws:sns:us-east-1:123456789012:holdfast-alerts", "https://sqs.us-east-1.amazonaws.com/123456789012/holdfastcontrol"
	return []function{
		{"coordinate", "coordinate", environment.Coordinate{Cloud: cloud, Queue: queue}},
		{"verify", "verify", environment.Verify{Cloud: cloud, Queue: queue}},
		{"lifecycle", "lifecycle", environment.Lifecycle{Cloud: cloud, Queue: queue, Lock: "GOVERNANCE"}},
		{"monitor", "monitor", environment.Monitor{Cloud: cloud, Topic: topic, Bus: "holdfast"}},
		{"watchdog", "monitor", environment.Watchdog{
			Cloud: cloud, Mode: environment.ModeWatchdog, Topic: topic, Primary: "state", PrimaryRegion: "us-west-2",
		}},
		{"restore", "restore", environment.Restore{Cloud: cloud}},
	}
}

func run(out io.Writer, times int, limit float64) error {
	root, err := program.Root()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "coldstart-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	api, err := listen()
	if err != nil {
		return err
	}
	defer api.close()
	_, _ = fmt.Fprintf(out, "%-12s %8s %8s %8s %8s\n", "function", "median", "least", "greatest", "MB")
	var slow []error
	for _, f := range functions() {
		bin := filepath.Join(dir, f.name)
		if err := program.Function(filepath.Join(root, "functions", f.program), bin); err != nil {
			return err
		}
		env, err := environment.Map(f.env)
		if err != nil {
			return err
		}
		took := make([]float64, 0, times)
		for range times {
			d, err := api.start(bin, env)
			if err != nil {
				return fmt.Errorf("start %s: %w", f.name, err)
			}
			took = append(took, float64(d.Microseconds())/1000)
		}
		slices.Sort(took)
		info, err := os.Stat(bin)
		if err != nil {
			return err
		}
		median := took[len(took)/2]
		_, _ = fmt.Fprintf(out, "%-12s %8.1f %8.1f %8.1f %8.1f\n", f.name, median, took[0], took[len(took)-1], float64(info.Size())/1e6)
		if limit > 0 && median > limit {
			slow = append(slow, fmt.Errorf("%s takes %.1f ms to be ready, more than %g", f.name, median, limit))
		}
	}
	return errors.Join(slow...)
}

// runtime is a Runtime API that has no invocation for anybody.
type runtime struct {
	listener net.Listener
	asked    chan time.Time
}

func listen() (*runtime, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &runtime{listener, make(chan time.Time, 1)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /2018-06-01/runtime/invocation/next", func(_ http.ResponseWriter, q *http.Request) {
		r.asked <- time.Now()
		<-q.Context().Done()
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(listener) }()
	return r, nil
}

func (r *runtime) close() { _ = r.listener.Close() }

// start starts the binary, waits until it asks for its first invocation, and ends it.
func (r *runtime) start(bin string, env map[string]string) (time.Duration, error) {
	cmd := exec.Command(bin) //nolint:gosec // built by this program
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "TZ=:UTC", "LAMBDA_TASK_ROOT=" + filepath.Dir(bin), "_HANDLER=bootstrap",
		"AWS_LAMBDA_RUNTIME_API=" + r.listener.Addr().String(), "AWS_LAMBDA_FUNCTION_NAME=coldstart", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE=512",
		"AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=none", "AWS_SECRET_ACCESS_KEY=none",
	}
	for name, value := range env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	cmd.Stderr = os.Stderr
	ended := make(chan error, 1)
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	go func() { ended <- cmd.Wait() }()
	select {
	case at := <-r.asked:
		_ = cmd.Process.Kill()
		<-ended
		return at.Sub(began), nil
	case err := <-ended:
		return 0, fmt.Errorf("it ended before it was ready: %w", errors.Join(err, errors.New("see above")))
	case <-time.After(time.Minute):
		_ = cmd.Process.Kill()
		<-ended
		return 0, errors.New("it was not ready after a minute")
	}
}
