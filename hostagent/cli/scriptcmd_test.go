package cli_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// status runs a command and checks its exit code: `status 3 holdfast backup …`. Its output is that of exec.
func status(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status CODE COMMAND [ARGUMENT…]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// capture sets a variable to what the first group of a regular expression matches in the last output:
// `capture KEY '^opens +(.*)'`.
func capture(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: capture VARIABLE REGEXP")
	}
	re, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	found := re.FindStringSubmatch(ts.ReadFile("stdout"))
	if len(found) < 2 {
		ts.Fatalf("no match for %q", args[1])
	}
	ts.Setenv(args[0], found[1])
}

// newPack sets a variable to the file of the last pack that a snapshot of a source added: `newpack PACK
// repo/v1/testhost/t 2`. Times of files can't tell which it is: two of them can be the same.
func newPack(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: newpack VARIABLE SOURCE-DIRECTORY SNAPSHOT")
	}
	source := ts.MkAbs(args[1])
	number, err := strconv.ParseUint(args[2], 10, 64)
	ts.Check(err)
	document, err := os.ReadFile(filepath.Join(source, "snapshots", fmt.Sprintf("%010d.json", number)))
	ts.Check(err)
	payload, _, _ := bytes.Cut(document, []byte("\n"))
	m, err := snapshot.ParseManifest(payload)
	ts.Check(err)
	var newest snapshot.PackInfo
	for _, list := range m.Lists {
		b, err := os.ReadFile(filepath.Join(source, "lists", list.List))
		ts.Check(err)
		packs, err := snapshot.DecodeList(b)
		ts.Check(err)
		if last := packs[len(packs)-1]; last.Number > newest.Number {
			newest = last
		}
	}
	ts.Setenv(args[0], filepath.Join(source, "packs", m.Chain, newest.ID.String()))
}

// flip turns one bit of a file over, at a byte that is counted from 0: `flip $PACK 50`. A fixed byte written there would
// be the one that is there already once in 256 times.
func flip(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: flip FILE OFFSET")
	}
	name := ts.MkAbs(args[0])
	at, err := strconv.Atoi(args[1])
	ts.Check(err)
	b, err := os.ReadFile(name)
	ts.Check(err)
	if at < 0 || at >= len(b) {
		ts.Fatalf("%s has %d bytes", name, len(b))
	}
	b[at] ^= 1
	ts.Check(os.Chmod(name, 0o600))
	ts.Check(os.WriteFile(name, b, 0o600))
}
