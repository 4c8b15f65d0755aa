package retry

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/btcdecoded/holdfast/shared/objstore"
)

// checksumTries is how often content is sent that arrives as something else. A wire that spoils it more often than that
// is no passing trouble.
const checksumTries = 4

// put calls send until it succeeds or is not to be called again. Content that arrived as something else is read once
// more: if it is still what was announced, the wire has spoilt it, and it is sent again.
func (s *Store) put(ctx context.Context, key string, c objstore.Content, send func() error) error {
	refused := 0
	return s.do(ctx, "put", key, func() error {
		err := send()
		if !errors.Is(err, objstore.ErrChecksum) {
			return err
		}
		if rotten := check(ctx, c); rotten != nil {
			return fmt.Errorf("%w: %w", err, rotten)
		}
		if refused++; refused >= checksumTries {
			return fmt.Errorf("spoilt on its way %d times: %w", refused, err)
		}
		return objstore.Transient(err)
	})
}

// errRotten says that the content itself is at fault, and not what it went through.
var errRotten = errors.New("the content here is not any more what its checksum was made of: memory or disk of this host is at fault")

// check reads the content and compares it with its checksum. Errors: errRotten, those of reading and of ctx.
func check(ctx context.Context, c objstore.Content) error {
	if c.ReaderAt == nil {
		return errRotten
	}
	hash := sha256.New()
	r := io.NewSectionReader(objstore.Unmetered(c.ReaderAt), 0, c.Size)
	for buf := make([]byte, 256<<10); ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := r.Read(buf)
		hash.Write(buf[:n])
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if [32]byte(hash.Sum(nil)) != c.SHA256 {
		return errRotten
	}
	return nil
}
