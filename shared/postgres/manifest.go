package postgres

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
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

// manifestJSON is the document. Names are PostgreSQL's.
type manifestJSON struct {
	Version  int            `json:"PostgreSQL-Backup-Manifest-Version"`
	System   *uint64        `json:"System-Identifier"`
	Files    []manifestFile `json:"Files"`
	Ranges   []manifestWAL  `json:"WAL-Ranges"`
	Checksum string         `json:"Manifest-Checksum"`
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

// ParseManifest parses a backup manifest and checks its own checksum, which is of all lines before the last. Errors:
// ErrManifestChecksum, ErrFormat.
func ParseManifest(b []byte) (*BackupManifest, error) {
	var doc manifestJSON
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&doc); err != nil {
		return nil, malformed("backup manifest: %v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, malformed("backup manifest: more after its end")
	}
	last := bytes.LastIndexByte(bytes.TrimSuffix(b, []byte("\n")), '\n')
	if want := sha256.Sum256(b[:last+1]); doc.Checksum != hex.EncodeToString(want[:]) {
		return nil, ErrManifestChecksum
	}
	m := &BackupManifest{Version: doc.Version, Files: make([]ManifestFile, 0, len(doc.Files))}
	switch {
	case doc.Version != 1 && doc.Version != 2:
		return nil, malformed("backup manifest of version %d", doc.Version)
	case (doc.Version == 2) != (doc.System != nil):
		return nil, malformed("backup manifest of version %d: the system identifier is there, or missing, against it", doc.Version)
	case doc.System != nil:
		m.System = *doc.System
	}
	seen := make(map[string]bool, len(doc.Files))
	for i := range doc.Files {
		f, err := doc.Files[i].parse()
		if err == nil && seen[f.Path] {
			err = malformed("%q is in it twice", brief(f.Path))
		}
		if err != nil {
			return nil, fmt.Errorf("backup manifest, file %d: %w", i+1, err)
		}
		seen[f.Path] = true
		m.Files = append(m.Files, f)
	}
	for i := range doc.Ranges {
		r, err := doc.Ranges[i].parse()
		if err != nil {
			return nil, fmt.Errorf("backup manifest, WAL range %d: %w", i+1, err)
		}
		m.Ranges = append(m.Ranges, r)
	}
	return m, nil
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
