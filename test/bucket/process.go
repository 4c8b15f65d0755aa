package bucket

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// process is a server that ends with the test.
type process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has ended
}

const (
	startWithin = 60 * time.Second
	stopWithin  = 5 * time.Second
)

// start runs a server on a free port of 127.0.0.1 and returns its address when it accepts connections. Between finding
// a free port and using it another process may take it; then the next one is tried.
func start(t testing.TB, name string, command func(address string) *exec.Cmd) (address string) {
	t.Helper()
	log := filepath.Join(t.TempDir(), name+".log")
	for range 5 {
		address, err := freeAddress()
		if err != nil {
			t.Fatal(err)
		}
		p, err := run(command(address), log)
		if err != nil {
			t.Fatalf("start %s: %v", name, err)
		}
		if p.accepts(address) {
			t.Cleanup(func() {
				p.stop()
				if t.Failed() {
					t.Logf("%s said:\n%s", name, p.said())
				}
			})
			return address
		}
		p.stop()
		t.Logf("%s did not start on %s:\n%s", name, address, p.said())
	}
	t.Fatalf("%s does not start", name)
	return ""
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	return l.Addr().String(), l.Close()
}

func run(cmd *exec.Cmd, log string) (*process, error) {
	f, err := os.Create(log) //nolint:gosec // in the test's directory
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	cmd.Stdout, cmd.Stderr = f, f
	endWithParent(cmd)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, log: log, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// accepts waits until the server takes connections, and returns false if it ended or took too long.
func (p *process) accepts(address string) bool {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(startWithin)
	for {
		select {
		case <-p.done:
			return false
		case <-limit:
			return false
		case <-tick.C:
		}
		c, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			continue
		}
		_ = c.Close()
		// Somebody else's server may have answered, before this one has found out that it came too late.
		if listens(p.cmd.Process.Pid, address) {
			return true
		}
	}
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(stopWithin):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// said returns the end of the server's output.
func (p *process) said() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-4000):])
}
