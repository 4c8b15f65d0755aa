package postgres

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"path"
	"strings"
	"time"
)

// ErrManifestChecksum says that a backup manifest is not the one that the server wrote.
var ErrManifestChecksum = errors.New("the backup manifest's own checksum does not fit")

// BackupManifest is what a server says of a base backup: which files it consists of, and which WAL it needs.
type BackupManifest struct {
	Version int    // 1, or 2 from PostgreSQL 17 on
	System  uint64 // system identifier; 0 in version 1
	Files   []ManifestFile
	Ranges  []WALRange // WAL that is needed to make the backup consistent
}

// ManifestFile is one file of a backup.
type ManifestFile struct {
	Path      string // relative to the data directory, with /
	Size      int64  // bytes
	Modified  time.Time
	Algorithm string // "CRC32C", "SHA256" and so on; "": none
	Checksum  []byte // CRC32C: the four bytes in little-endian order
}

// WALRange is WAL of a timeline, from Start up to and without End.
type WALRange struct {
	Timeline   uint32
	Start, End LSN
}

type manifestFile struct {
	Path      *string `json:"Path"`
	Encoded   *string `json:"Encoded-Path"` // hex, where the path is no UTF-8
	Size      *int64  `json:"Size"`
	Modified  string  `json:"Last-Modified"`
	Algorithm string  `json:"Checksum-Algorithm"`
	Checksum  string  `json:"Checksum"`
}

type manifestWAL struct {
	Timeline uint32 `json:"Timeline"`
	Start    string `json:"Start-LSN"`
	End      string `json:"End-LSN"`
}

// ParseManifest is [ReadManifest] of bytes, with all files in the result.
func ParseManifest(b []byte) (*BackupManifest, error) {
	var files []ManifestFile
	m, err := ReadManifest(bytes.NewReader(b), func(f ManifestFile) error {
		files = append(files, f)
		return nil
	})
	if err != nil {
		return nil, err
	}
	m.Files = files
	return m, nil
}

// ReadManifest reads a backup manifest, which may be large, to its end, and gives each file to file as it comes: before
// anything is proven. When it returns without an error the manifest's own checksum, which is of all lines before the last,
// was right. The result has no Files. Errors: ErrManifestChecksum, ErrFormat, those of r and file.
func ReadManifest(r io.Reader, file func(ManifestFile) error) (*BackupManifest, error) {
	lines := &lineHash{hash: sha256.New()}
	d := manifestReader{json: json.NewDecoder(io.TeeReader(r, lines)), file: file, seen: map[string]bool{}}
	m, checksum, err := d.read()
	if err != nil {
		return nil, fmt.Errorf("backup manifest: %w", err)
	}
	switch {
	case checksum != hex.EncodeToString(lines.hash.Sum(nil)):
		return nil, ErrManifestChecksum
	case m.Version != 1 && m.Version != 2:
		return nil, malformed("backup manifest of version %d", m.Version)
	case (m.Version == 2) != (m.System != 0):
		return nil, malformed("backup manifest of version %d: the system identifier is there, or missing, against it", m.Version)
	}
	return m, nil
}

// lineHash hashes all lines but the last one.
type lineHash struct {
	hash hash.Hash
	last []byte
}

const maxLine = 1 << 20

func (l *lineHash) Write(b []byte) (int, error) {
	total := len(b)
	for len(b) > 0 {
		if n := len(l.last); n > 0 && l.last[n-1] == '\n' {
			_, _ = l.hash.Write(l.last)
			l.last = l.last[:0]
		}
		n := bytes.IndexByte(b, '\n') + 1
		if n == 0 {
			n = len(b)
		}
		if len(l.last)+n > maxLine {
			return 0, malformed("a line of more than %d bytes", maxLine)
		}
		l.last = append(l.last, b[:n]...)
		b = b[n:]
	}
	return total, nil
}

// manifestReader takes the document apart. Members that it does not know are passed over.
type manifestReader struct {
	json *json.Decoder
	file func(ManifestFile) error
	seen map[string]bool // members
	n    int             // files so far
}

func (r *manifestReader) read() (m *BackupManifest, checksum string, err error) {
	m = &BackupManifest{}
	if err := r.delimiter('{'); err != nil {
		return nil, "", err
	}
	for r.json.More() {
		t, err := r.json.Token()
		if err != nil {
			return nil, "", broken(err)
		}
		name, _ := t.(string)
		if r.seen[name] {
			return nil, "", malformed("%q comes twice", brief(name))
		}
		r.seen[name] = true
		switch name {
		case "PostgreSQL-Backup-Manifest-Version":
			err = broken(r.json.Decode(&m.Version))
		case "System-Identifier":
			err = broken(r.json.Decode(&m.System))
		case "Files":
			err = r.each(r.nextFile)
		case "WAL-Ranges":
			err = r.each(func() error { return r.nextRange(m) })
		case "Manifest-Checksum":
			err = broken(r.json.Decode(&checksum))
		default:
			err = broken(r.json.Decode(new(json.RawMessage)))
		}
		if err != nil {
			return nil, "", err
		}
	}
	if err := r.delimiter('}'); err != nil {
		return nil, "", err
	}
	switch _, err := r.json.Token(); {
	case err == nil:
		return nil, "", malformed("more after its end")
	case !errors.Is(err, io.EOF):
		return nil, "", broken(err)
	}
	return m, checksum, nil
}

// broken tells what is no JSON, or ends too early, from trouble with reading.
func broken(err error) error {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	if errors.As(err, &syntax) || errors.As(err, &kind) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return malformed("%v", err)
	}
	return err
}

func (r *manifestReader) delimiter(want json.Delim) error {
	t, err := r.json.Token()
	if err != nil {
		return broken(err)
	}
	if t != want {
		return malformed("%q should stand before byte %d", want.String(), r.json.InputOffset())
	}
	return nil
}

// each calls next before each item of a list.
func (r *manifestReader) each(next func() error) error {
	if err := r.delimiter('['); err != nil {
		return err
	}
	for r.json.More() {
		if err := next(); err != nil {
			return err
		}
	}
	return r.delimiter(']')
}

func (r *manifestReader) nextFile() error {
	var item manifestFile
	r.n++
	if err := r.json.Decode(&item); err != nil {
		return broken(err)
	}
	f, err := item.parse()
	if err != nil {
		return fmt.Errorf("file %d: %w", r.n, err)
	}
	return r.file(f)
}

func (r *manifestReader) nextRange(m *BackupManifest) error {
	var item manifestWAL
	if err := r.json.Decode(&item); err != nil {
		return broken(err)
	}
	w, err := item.parse()
	if err != nil {
		return fmt.Errorf("WAL range %d: %w", len(m.Ranges)+1, err)
	}
	m.Ranges = append(m.Ranges, w)
	return nil
}

func (f *manifestFile) parse() (ManifestFile, error) {
	var out ManifestFile
	switch {
	case f.Path != nil && f.Encoded == nil:
		out.Path = *f.Path
	case f.Path == nil && f.Encoded != nil:
		b, err := hex.DecodeString(*f.Encoded)
		if err != nil {
			return out, malformed("encoded path %q", brief(*f.Encoded))
		}
		out.Path = string(b)
	default:
		return out, malformed("it has no path, or two")
	}
	if out.Path == "" || path.Clean("/"+out.Path) != "/"+out.Path || strings.Contains(out.Path, "\x00") {
		return out, malformed("path %q", brief(out.Path))
	}
	if f.Size == nil || *f.Size < 0 {
		return out, malformed("%q has no size", brief(out.Path))
	}
	out.Size, out.Algorithm = *f.Size, f.Algorithm
	var err error
	if out.Modified, err = time.Parse("2006-01-02 15:04:05 MST", f.Modified); err != nil {
		return out, malformed("%q was modified at %q", brief(out.Path), brief(f.Modified))
	}
	out.Modified = out.Modified.UTC()
	if out.Checksum, err = hex.DecodeString(f.Checksum); err != nil || (f.Algorithm == "") != (f.Checksum == "") {
		return out, malformed("%q has the checksum %q %q", brief(out.Path), brief(f.Algorithm), brief(f.Checksum))
	}
	return out, nil
}

func (r *manifestWAL) parse() (WALRange, error) {
	start, err := ParseLSN(r.Start)
	if err != nil {
		return WALRange{}, err
	}
	end, err := ParseLSN(r.End)
	if err != nil {
		return WALRange{}, err
	}
	if r.Timeline == 0 || end < start {
		return WALRange{}, malformed("timeline %d from %s to %s", r.Timeline, start, end)
	}
	return WALRange{r.Timeline, start, end}, nil
}
