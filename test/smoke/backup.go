package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// backup has the command line make a repository in the bucket, back up, verify and restore.
func (b *trial) backup(ctx context.Context, holdfast string, w io.Writer) (err error) {
	program, err := filepath.Abs(holdfast)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "holdfast-smoke-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	tree, to := filepath.Join(dir, "tree"), filepath.Join(dir, "restored")
	content := make([]byte, 1<<20)
	if _, err := rand.Read(content); err != nil {
		return err
	}
	if err := errors.Join(os.Mkdir(tree, 0o700), os.WriteFile(filepath.Join(tree, "file"), content, 0o600)); err != nil {
		return err
	}
	command := func(args ...string) error {
		c := exec.CommandContext(ctx, program, args...) //nolint:gosec // the program that was asked for
		c.Env = append(os.Environ(), "HOLDFAST_REPOSITORY="+b.address(), "HOLDFAST_IDENTITY="+filepath.Join(dir, "identity"),
			"HOLDFAST_STATE="+filepath.Join(dir, "state"), "HOLDFAST_POLICY=")
		if out, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("holdfast %s: %w\n%s", args[0], err, out)
		}
		fmt.Fprintln(w, "ok: holdfast", args[0])
		return nil
	}
	for _, args := range [][]string{
		{"init"},
		{"backup", "--files", tree, "--name", "tree", "--quiet"},
		{"verify", "--level", "content"},
		{"restore", "tree", "--to", to},
	} {
		if err := command(args...); err != nil {
			return err
		}
	}
	got, err := os.ReadFile(filepath.Join(to, "file")) //nolint:gosec // in the directory of this run
	if err == nil && !bytes.Equal(got, content) {
		err = errors.New("the restored file is another than the one that was backed up")
	}
	if err == nil {
		fmt.Fprintln(w, "ok: what was restored is what was backed up")
	}
	return err
}
