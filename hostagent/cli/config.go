package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/btcdecoded/holdfast/hostagent/source/sqlite"
	"github.com/btcdecoded/holdfast/shared/policy"
)

const defaultPolicy = "/etc/holdfast/policy.yaml"

// policyPath is the policy's file, or empty if there is none. A policy that was named must be there; the default one
// may be missing. --policy "" and HOLDFAST_POLICY set to nothing mean no policy.
func (a *app) policyPath() string {
	if a.flags.policy != "" || a.noPolicy {
		return a.flags.policy
	}
	if v, ok := a.env("HOLDFAST_POLICY"); ok {
		return v
	}
	if _, err := os.Stat(defaultPolicy); err == nil {
		return defaultPolicy
	}
	return ""
}

// loadPolicy reads the policy, with a source for each database of this host that a pattern names; it returns nil if none
// is configured.
func (a *app) loadPolicy() (*policy.Policy, error) {
	if a.pinned != nil {
		return a.pinned, nil
	}
	path := a.policyPath()
	if path == "" {
		return nil, nil
	}
	p, err := readPolicy(path)
	if err != nil {
		return nil, err
	}
	host, err := a.host()
	if err != nil {
		return nil, err
	}
	p, a.unnamed = p.Expand(host, sqlite.Find)
	return p, nil
}

// needPolicy reads the policy, which must be configured.
func (a *app) needPolicy() (*policy.Policy, error) {
	p, err := a.loadPolicy()
	if err == nil && p == nil {
		return nil, hinted{usagef("no policy"), "name its file with --policy or HOLDFAST_POLICY, or put it at " + defaultPolicy}
	}
	return p, err
}

func readPolicy(path string) (*policy.Policy, error) {
	b, err := readLimited(path, policy.MaxFile)
	if err != nil {
		return nil, fmt.Errorf("read policy: %w", err)
	}
	p, err := policy.Parse(b)
	if err != nil {
		return nil, policyError{path: path, err: err}
	}
	return p, nil
}

// policyError is what is wrong in a policy file, each on a line of its own with the file's name.
type policyError struct {
	path string
	err  error
}

func (e policyError) Error() string {
	var all policy.Errors
	if !errors.As(e.err, &all) || len(all) == 0 {
		return fmt.Sprintf("%s: %v", e.path, e.err)
	}
	text := ""
	for i, one := range all {
		if i > 0 {
			text += "\n"
		}
		text += e.path + ": " + one.Error()
	}
	return text
}

func (e policyError) Unwrap() error { return e.err }

// Hint tells where the grammar is.
func (e policyError) Hint() string {
	return "`holdfast policy schema` prints the grammar; docs/policy.md explains each key"
}

// readLimited reads a file of at most limit bytes.
func readLimited(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("larger than %d bytes", limit)}
	}
	return b, nil
}

// address is where the repository is: the flag's, the environment's or the policy's.
func (a *app) address() (string, error) {
	if addr := a.setting(a.flags.repository, "HOLDFAST_REPOSITORY"); addr != "" {
		return addr, nil
	}
	p, err := a.loadPolicy()
	if err != nil {
		return "", err
	}
	if p != nil && p.Repository.Primary != "" {
		return p.Repository.Primary, nil
	}
	return "", hinted{usagef("no repository"), "name it with -r, HOLDFAST_REPOSITORY or the policy, such as -r /mnt/backup or -r s3://bucket/prefix"}
}
