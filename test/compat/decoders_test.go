package compat_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// mutants is how many changed inputs each decoder gets.
const mutants = 1200

// decoder is one of Holdfast's, with valid bytes to begin with and how they are changed.
type decoder struct {
	kind   string
	seed   string // file, by its path from shared/snapshot/testdata; or the bytes themselves
	accept func([]byte) error
	mutate func(*rand.Rand, []byte) []byte
}

func decoders() []decoder {
	return []decoder{
		{"tree", "tree.hex", func(b []byte) error {
			return snapshot.DecodeTree(b, func(*snapshot.Entry) error { return nil })
		}, mutateTree},
		{"map", "map.hex", func(b []byte) error { _, err := snapshot.DecodeMap(b); return err }, mutate},
		{"root", "root.hex", func(b []byte) error { _, err := snapshot.DecodeRoot(b); return err }, mutate},
		{"list", "list.hex", func(b []byte) error { _, err := snapshot.DecodeList(b); return err }, mutate},
		{"record", "../../repository/log/testdata/record.hex", func(b []byte) error { return log.CheckRecord(log.KindSQLite, b) }, mutate},
		{"wal", "../../repository/log/testdata/wal.hex", func(b []byte) error { return log.CheckRecord(log.KindPostgres, b) }, mutate},
		{"history", "../../repository/log/testdata/history.hex", func(b []byte) error { return log.CheckRecord(log.KindPostgres, b) }, mutate},
		{"index", "index.hex", func(b []byte) error { _, err := snapshot.DecodeIndex(b); return err }, mutate},
		{"report", `{"problems":[{"path":"L2E=","operation":"read","error":"gone"},{"operation":"x","error":"and more"}]}`, func(b []byte) error {
			_, err := snapshot.ParseReport(b)
			return err
		}, mutateJSON},
		{"manifest", "manifest.json", func(b []byte) error {
			m, err := snapshot.ParseManifest(b)
			if err != nil {
				return err
			}
			return m.Check()
		}, mutateJSON},
		{"cluster", "manifest-postgres.json", func(b []byte) error { _, err := snapshot.ParseManifest(b); return err }, mutateJSON},
	}
}

// lax is what the reader says to JSON that the document refuses and Holdfast takes, as encoding/json does: members twice,
// missing, in other case or null, text that is not UTF-8, base64 with line breaks or bits beyond its end, numbers from
// 2⁶³, ranges with one number or three, bytes as an array of numbers. All of it would have to be signed by a trusted signer.
var lax = regexp.MustCompile(`occurs twice|is None, not|member (path|wrapped) is \[|codec can't decode|not (canonical )?base64|not a range|: \w+ is 18446744073709551615|: \w+ is 9223372036854775808`)

// testDecoders gives changed bytes to both: what one refuses, the other must refuse.
func testDecoders(t *testing.T, p programs) {
	for i, d := range decoders() {
		t.Run(d.kind, func(t *testing.T) {
			t.Parallel()
			seed := uint64(i + 1)
			t.Logf("seed %d", seed)
			random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // repeatable
			inputs := [][]byte{valid(t, d.seed)}
			for len(inputs) < mutants {
				inputs = append(inputs, d.mutate(random, inputs[0]))
			}
			answers := p.accepts(t, d.kind, inputs)
			if answers[0] != "yes" {
				t.Errorf("the reader refuses the document's own example: %s", answers[0])
			}
			accepted := 0
			for n, input := range inputs {
				err := d.accept(input)
				if (err == nil) != (answers[n] == "yes") && (err != nil || !strings.HasPrefix(string(input), "{") || !lax.MatchString(answers[n])) {
					t.Errorf("input %d: holdfast says %v, the reader %s:\n%s", n, err, answers[n], show(d.kind, input))
				}
				if err == nil {
					accepted++
				}
			}
			t.Logf("%d of %d accepted", accepted, len(inputs))
		})
	}
}

// accepts asks the reader about each input.
func (p programs) accepts(t *testing.T, kind string, inputs [][]byte) []string {
	t.Helper()
	var lines strings.Builder
	for _, input := range inputs {
		fmt.Fprintf(&lines, "%s %x\n", kind, input)
	}
	command := p.command("-m", "reader.accept")
	command.Stdin = strings.NewReader(lines.String())
	out, code := output(t, command)
	answers := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	if code != 0 || len(answers) != len(inputs) {
		t.Fatalf("exit code %d and %d answers to %d inputs\n%s", code, len(answers), len(inputs), out)
	}
	return answers
}

func valid(t *testing.T, name string) []byte {
	t.Helper()
	if strings.HasPrefix(name, "{") {
		return []byte(name)
	}
	data, err := os.ReadFile("../../shared/snapshot/testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasSuffix(name, ".json") {
		return bytes.TrimSpace(data)
	}
	data, err = hex.DecodeString(strings.Join(strings.Fields(string(data)), ""))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func show(kind string, input []byte) string {
	if kind == "manifest" || kind == "report" {
		return string(input)
	}
	return hex.EncodeToString(input)
}

// mutate changes one to three places.
func mutate(random *rand.Rand, data []byte) []byte {
	data = slices.Clone(data)
	for range 1 + random.IntN(3) {
		if len(data) < 4 {
			return data
		}
		at := random.IntN(len(data))
		end := at + min(1+random.IntN(40), len(data)-at)
		switch random.IntN(7) {
		case 0:
			data[at] ^= 1 << random.IntN(8)
		case 1, 2:
			data[at] = []byte{0, 1, 2, 3, 4, 0x7f, 0x80, 0xff, '/', '.'}[random.IntN(10)]
		case 3:
			data = slices.Insert(data, at, byte(random.IntN(256)))
		case 4:
			data = slices.Delete(data, at, at+1)
		case 5:
			data = slices.Delete(data, at, end)
		case 6:
			data = slices.Insert(data, random.IntN(len(data)), slices.Clone(data[at:end])...)
		}
	}
	return data
}

// mutateTree changes a record and writes its length again, so that what is wrong is inside; or leaves records out.
func mutateTree(random *rand.Rand, data []byte) []byte {
	var records [][]byte
	for len(data) > 0 {
		length, n := binary.Uvarint(data)
		records = append(records, data[n:n+int(length)]) //nolint:gosec // our own example
		data = data[n+int(length):]                      //nolint:gosec // our own example
	}
	at := random.IntN(len(records))
	switch random.IntN(12) {
	case 0:
		records = slices.Delete(records, at, at+1)
	case 1:
		records = records[:at+1]
	default:
		records[at] = mutate(random, records[at])
	}
	var out []byte
	for _, record := range records {
		out = append(binary.AppendUvarint(out, uint64(len(record))), record...)
	}
	return out
}

var jsonToken = regexp.MustCompile(`"[^"]*"|-?[0-9]+|true|false|[\[\]{},:]`)

// mutateJSON puts other tokens in the place of one or two, or takes some away.
func mutateJSON(random *rand.Rand, data []byte) []byte {
	tokens := jsonToken.FindAllString(string(data), -1)
	values := []string{
		`0`, `1`, `2`, `-1`, `1.5`, `1e3`, `1.0`, `18446744073709551615`, `18446744073709551616`, `9223372036854775808`, `4294967296`,
		`null`, `true`, `""`, `"a"`, `"*"`, `"ü"`, `"a b"`, `"A"`, `"\u0000"`, `"\n"`, `"\ud800"`, "\"\x7f\"", "\"\xff\"", `"\u200b"`,
		`"\u00a0"`, `[]`, `{}`, `[1]`, `[[1,1]]`, `[[1,1],[2,2]]`, `[[3,1]]`, `[{}]`, `NaN`, `[[0,1]]`, `[[1,1,1]]`, `[null]`,
		`"2026-03-04T05:06:07Z"`, `"2026-03-04T05:06:07.5Z"`, `"2026-03-04T05:06:07.50Z"`, `"2026-03-04T05:06:07+00:00"`,
		`"2026-02-30T05:06:07Z"`, `"2026-03-04T05:06:60Z"`, `"2026-03-04t05:06:07z"`, `"2026-03-04T05:06:07,5Z"`, `"0000-01-01T00:00:00Z"`,
		`"full"`, `"differential"`, `"incremental"`, `"0C0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c"`, `"d3JhcHBlZCBmb3Igb25"`, `"d3JhcHBlZCBmb3Igb25l\n"`,
		`"d3I="`, `"d3J="`, `"files-2"`, `"policy"`, `"access"`, `"age1"`, `"kms"`,
		`"` + strings.Repeat("x", 256) + `"`, `"` + strings.Repeat("x", 257) + `"`,
	}
	for range 1 + random.IntN(2) {
		at := random.IntN(len(tokens))
		switch random.IntN(8) {
		case 0:
			tokens = slices.Delete(tokens, at, min(at+1+random.IntN(4), len(tokens)))
		case 1: // a member less, if that is where it hit
			if end := min(at+4, len(tokens)); slices.Contains(tokens[at:end], ",") {
				tokens = slices.Delete(tokens, at, end)
			}
		case 2:
			tokens = slices.Insert(tokens, at, tokens[at:min(at+4, len(tokens))]...)
		default:
			for strings.ContainsAny(tokens[at], "[]{},:") {
				at = random.IntN(len(tokens))
			}
			tokens[at] = values[random.IntN(len(values))]
		}
		if len(tokens) < 8 {
			break
		}
	}
	return []byte(strings.Join(tokens, ""))
}
