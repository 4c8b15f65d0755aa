package cloud

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// Account is the account that the emulator has. It takes the access key for the account's number.
const Account = "123456789012"

// Emulator is a running ministack. It enforces no IAM policy and no Object Lock; docs/deploy.md tells what else
// it does not do.
type Emulator struct {
	Endpoint string // http://127.0.0.1:port
	log      string
}

// Start starts ministack on a free port of the loopback interface. It ends with the test, or with this process.
func Start(t testing.TB) *Emulator {
	t.Helper()
	dir := t.TempDir()
	e := &Emulator{log: filepath.Join(dir, "ministack.log")}
	for range 3 {
		if e.try(t, dir) {
			return e
		}
	}
	said, _ := os.ReadFile(e.log)
	t.Fatalf("ministack does not start:\n%s", said)
	return nil
}

func (e *Emulator) try(t testing.TB, dir string) bool {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	_ = l.Close()
	e.Endpoint = "http://127.0.0.1:" + port
	f, err := os.Create(e.log) //nolint:gosec // in the test's directory
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	cmd := exec.Command(filepath.Join(Python(t), "ministack"))
	cmd.Dir = dir
	cmd.Stdout, cmd.Stderr = f, f
	cmd.Env = append(os.Environ(),
		"BIND_HOST=127.0.0.1", "GATEWAY_PORT="+port, "MINISTACK_ACCOUNT_ID="+Account, "AWS_ENDPOINT_URL="+e.Endpoint,
		"TMPDIR="+dir, "STATE_DIR="+filepath.Join(dir, "state"), "LAMBDA_EXECUTOR=local", "LOG_LEVEL=INFO")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start ministack: %v", err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	stop := func() {
		// The whole group: functions run as its children.
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-ended
	}
	if !e.answers(t.Context(), 5*time.Minute, ended) {
		stop()
		return false
	}
	t.Cleanup(func() {
		stop()
		if t.Failed() {
			t.Logf("ministack said:\n%s", tail(e.log, 300))
		}
	})
	return true
}

// answers waits until the emulator does. Another process may have taken the port meanwhile: then whoever answers does not
// know the emulator's page, and the emulator has ended.
func (e *Emulator) answers(ctx context.Context, within time.Duration, ended <-chan struct{}) bool {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for ctx.Err() == nil {
		if e.healthy(ctx) {
			return true
		}
		select {
		case <-ended:
			return false
		case <-time.After(50 * time.Millisecond):
		}
	}
	return false
}

// healthy reports whether the emulator's own page is there.
func (e *Emulator) healthy(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second) // who has the port may never answer
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, e.Endpoint+"/_ministack/health", nil)
	if err != nil {
		return false
	}
	answer, err := http.DefaultClient.Do(q)
	if err != nil {
		return false
	}
	defer func() { _ = answer.Body.Close() }()
	said, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	return err == nil && answer.StatusCode == http.StatusOK && bytes.Contains(said, []byte(`"services"`))
}

// tail returns the last lines of a file.
func tail(name string, lines int) string {
	text, _ := os.ReadFile(name) //nolint:gosec // a test's own
	all := strings.Split(string(text), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// Output is what the emulator wrote so far; the output of functions is in it.
func (e *Emulator) Output(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile(e.log)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Env is the environment with which programs talk to the emulator and to nobody else.
func (e *Emulator) Env(region string) []string {
	return append(os.Environ(),
		"AWS_ENDPOINT_URL="+e.Endpoint, "AWS_ACCESS_KEY_ID="+Account, "AWS_SECRET_ACCESS_KEY=test", "AWS_SESSION_TOKEN=", "AWS_PROFILE=",
		"AWS_REGION="+region, "AWS_DEFAULT_REGION="+region, "AWS_EC2_METADATA_DISABLED=true",
		"AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "CDK_DISABLE_CLI_TELEMETRY=true")
}

// Config is the configuration of AWS clients for a region.
func (e *Emulator) Config(region string) aws.Config {
	return aws.Config{
		Region: region, BaseEndpoint: aws.String(e.Endpoint),
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: Account, SecretAccessKey: "test"}, nil
		}),
	}
}

// Run runs a program and returns what it wrote; both streams. A failure ends the test.
func Run(t testing.TB, dir string, env []string, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
	defer cancel()
	out, err := Command(ctx, dir, env, name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(append([]string{filepath.Base(name)}, args...), " "), err, out)
	}
	return string(out)
}

// Command is a program that ends with ctx.
func Command(ctx context.Context, dir string, env []string, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...) //nolint:gosec // programs of the test
	cmd.Dir, cmd.Env = dir, env
	return cmd
}

// Architecture is that of this machine, as Lambda names it.
func Architecture() string {
	if runtime.GOARCH == "arm64" {
		return "arm64"
	}
	return "x86_64"
}
