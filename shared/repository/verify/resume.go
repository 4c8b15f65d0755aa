package verify

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"sync"
	"time"

	"github.com/btcdecoded/holdfast/shared/repository/inventory"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Resume remembers, in a file of this host, which packs runs at level content have opened and found in order. The run that
// takes the place of one that was cut off opens the others: for a large source the time between two backups may never be
// enough for all of them. Use [OpenResume], set it in [Options], then [Resume.Close].
//
// A pack is remembered by its key, size and time of arrival: one that was written again since is read again, and so is one
// in which anything was wrong. Packs of maps are read by each run, they are few. Trees are always walked anew.
//
// What is remembered is no proof for anybody: it is worth as much as the host's word in a receipt. It is forgotten when a run
// comes to its end, and when its first pack was opened too long ago.
type Resume struct {
	began    time.Time
	recalled map[string]opened // by object key; read only after OpenResume

	mu   sync.Mutex
	file *os.File // guarded by mu
	err  error    // of the first write that failed: nothing is remembered from then on; guarded by mu
}

// opened is what is remembered of a pack.
type opened struct {
	size     int64
	modified int64 // nanoseconds since 1970
	table    []byte
}

// resumeMagic begins the file; the nanoseconds since 1970 when the first run began follow, 8 bytes, big-endian.
const resumeMagic = "holdfast verify 1\n"

const (
	resumeHeader = len(resumeMagic) + 8
	resumeEntry  = 4 + 4 + 4 + 14 + 1
	// maxResumeRecord bounds the memory for a length that is damaged: a pack has at most some hundred thousand chunks.
	maxResumeRecord = 64 << 20
)

var resumeTable = crc32.MakeTable(crc32.Castagnoli)

// OpenResume opens the file at path, or makes it. What began longer ago than that, or lies ahead of now, is forgotten, and so
// is what is damaged: then packs are read again.
func OpenResume(path string, now time.Time, longest time.Duration) (*Resume, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) //nolint:gosec // the caller's own
	if err != nil {
		return nil, fmt.Errorf("remember what is verified: %w", err)
	}
	r := &Resume{file: f, recalled: map[string]opened{}, began: now}
	text, err := io.ReadAll(f)
	if err == nil {
		err = f.Truncate(int64(r.load(text, now, longest)))
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekEnd)
	}
	if err == nil && len(r.recalled) == 0 {
		err = r.begin()
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("remember what is verified: %w", err)
	}
	return r, nil
}

// load reads what is there and returns how much of it is in order.
func (r *Resume) load(text []byte, now time.Time, longest time.Duration) (good int) {
	if len(text) < resumeHeader || string(text[:len(resumeMagic)]) != resumeMagic {
		return 0
	}
	began := time.Unix(0, int64(binary.BigEndian.Uint64(text[len(resumeMagic):]))) //nolint:gosec // as it was written
	if age := now.Sub(began); age < 0 || age > longest {
		return 0
	}
	good = resumeHeader
	for {
		key, o, n := decodeOpened(text[good:])
		if n == 0 {
			break
		}
		r.recalled[key] = o
		good += n
	}
	if len(r.recalled) == 0 {
		return 0
	}
	r.began = began
	return good
}

// begin writes the header of a file that is empty.
func (r *Resume) begin() error {
	if err := r.file.Truncate(0); err != nil {
		return err
	}
	b := binary.BigEndian.AppendUint64([]byte(resumeMagic), uint64(r.began.UnixNano())) //nolint:gosec // read in the same way
	_, err := r.file.WriteAt(b, 0)
	if err == nil {
		_, err = r.file.Seek(0, io.SeekEnd)
	}
	return err
}

// Began is when the first of the runs began whose work this one goes on with; now, where it is the first.
func (r *Resume) Began() time.Time { return r.began }

// Packs is how many packs are remembered of earlier runs.
func (r *Resume) Packs() int { return len(r.recalled) }

// Close ends the file. done says that the run came to its end: then nothing is left to remember.
//
// Errors: why packs could not be remembered; the run is none the worse for it.
func (r *Resume) Close(done bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil {
		return nil
	}
	errs := []error{r.err}
	if done {
		errs = append(errs, os.Remove(r.file.Name()))
	}
	errs = append(errs, r.file.Close())
	r.file = nil
	return errors.Join(errs...)
}

// recall returns the table of a pack that was opened before and is the same still.
func (r *Resume) recall(key string, o inventory.Object) ([]chunkEntry, bool) {
	had, ok := r.recalled[key]
	if !ok || had.size != o.Size || had.modified != o.Modified.UnixNano() {
		return nil, false
	}
	table := make([]chunkEntry, 0, len(had.table)/resumeEntry)
	for b := had.table; len(b) >= resumeEntry; b = b[resumeEntry:] {
		e := chunkEntry{offset: binary.BigEndian.Uint32(b), sealed: binary.BigEndian.Uint32(b[4:]), plain: binary.BigEndian.Uint32(b[8:])}
		copy(e.id[:], b[12:26])
		e.kind = snapshot.Kind(b[26])
		table = append(table, e)
	}
	return table, true
}

// keep remembers a pack that is in order. A crash leaves half a record, which the next run cuts off.
func (r *Resume) keep(key string, o inventory.Object, table []chunkEntry) {
	for i := range table {
		if table[i].bad || table[i].kind == snapshot.Map {
			return
		}
	}
	b := encodeOpened(key, o, table)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil || r.err != nil {
		return
	}
	if _, err := r.file.Write(b); err != nil {
		r.err = fmt.Errorf("remember what is verified: %w", err)
	}
}

// encodeOpened writes a record: length and checksum of what follows, 4 bytes each; size and time of arrival, 8 each; the key
// with its length in 2; then 27 for each chunk.
func encodeOpened(key string, o inventory.Object, table []chunkEntry) []byte {
	b := make([]byte, 8, 8+18+len(key)+len(table)*resumeEntry)
	b = binary.BigEndian.AppendUint64(b, uint64(o.Size))                //nolint:gosec // read in the same way
	b = binary.BigEndian.AppendUint64(b, uint64(o.Modified.UnixNano())) //nolint:gosec // likewise
	b = binary.BigEndian.AppendUint16(b, uint16(len(key)))              //nolint:gosec // keys have at most 1024 bytes
	b = append(b, key...)
	for i := range table {
		e := &table[i]
		b = binary.BigEndian.AppendUint32(b, e.offset)
		b = binary.BigEndian.AppendUint32(b, e.sealed)
		b = binary.BigEndian.AppendUint32(b, e.plain)
		b = append(b, e.id[:]...)
		b = append(b, byte(e.kind))
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-8)) //nolint:gosec // far less than that
	binary.BigEndian.PutUint32(b[4:], crc32.Checksum(b[8:], resumeTable))
	return b
}

// decodeOpened reads the record with which b begins, and returns its length; 0: there is no whole one.
func decodeOpened(b []byte) (key string, o opened, n int) {
	if len(b) < 8 {
		return "", o, 0
	}
	size := int64(binary.BigEndian.Uint32(b))
	if size > maxResumeRecord || size < 18 || int64(len(b)) < 8+size {
		return "", o, 0
	}
	body := b[8 : 8+size]
	if crc32.Checksum(body, resumeTable) != binary.BigEndian.Uint32(b[4:]) {
		return "", o, 0
	}
	o.size, o.modified = int64(binary.BigEndian.Uint64(body)), int64(binary.BigEndian.Uint64(body[8:])) //nolint:gosec // as they were written
	length := int(binary.BigEndian.Uint16(body[16:]))
	rest := body[18:]
	if len(rest) < length || (len(rest)-length)%resumeEntry != 0 {
		return "", o, 0
	}
	o.table = bytes.Clone(rest[length:])
	return string(rest[:length]), o, int(8 + size)
}

// recall takes over the packs that an earlier run has opened.
func (s *source) recall(packs []*pack) {
	r := s.c.opts.Resume
	if r == nil {
		return
	}
	for _, p := range packs {
		if p.lost || p.chain.keys == nil || p.fault.Load() != nil {
			continue
		}
		if table, ok := r.recall(s.inv.PackKey(p.name()), s.inv.Packs[p.name()]); ok {
			p.table, p.indexed, p.read, p.recalled = table, true, true, true
			s.chunks.Add(uint64(len(table)))
		}
	}
}
