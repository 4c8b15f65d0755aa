package objstore

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

const (
	// MaxKey is the longest key in bytes. S3 allows 1,024, of which a prefix in the bucket may take some.
	MaxKey = 768
	// MaxComponent is the longest component of a key in bytes: what a file name may be.
	MaxComponent = 255
	// Reserved is the first component that no key has: drivers keep their own unfinished work there.
	Reserved = "tmp"
)

// ErrKey says that a key or a prefix is none.
var ErrKey = errors.New("not a valid key")

// CheckKey returns an error that wraps ErrKey unless key is one that every driver can keep: components of letters,
// digits, '.', '_' and '-', not beginning with '.', joined by single '/'; the first is not [Reserved].
func CheckKey(key string) error {
	if len(key) > MaxKey {
		return fmt.Errorf("key of %d bytes (at most %d): %w", len(key), MaxKey, ErrKey)
	}
	for i, c := range strings.Split(key, "/") {
		if !ValidComponent(c) || i == 0 && c == Reserved {
			return fmt.Errorf("key %q: %w", key, ErrKey)
		}
	}
	return nil
}

// CheckPrefix returns an error that wraps ErrKey unless prefix is empty or can begin a key.
func CheckPrefix(prefix string) error {
	if len(prefix) > MaxKey {
		return fmt.Errorf("prefix of %d bytes (at most %d): %w", len(prefix), MaxKey, ErrKey)
	}
	parts := strings.Split(prefix, "/")
	for i, c := range parts {
		if i == len(parts)-1 && c == "" {
			continue
		}
		if !ValidComponent(c) {
			return fmt.Errorf("prefix %q: %w", prefix, ErrKey)
		}
	}
	return nil
}

// ValidComponent reports whether c can stand between two slashes of a key.
func ValidComponent(c string) bool {
	if c == "" || len(c) > MaxComponent || c[0] == '.' {
		return false
	}
	for i := range len(c) {
		b := c[i]
		switch {
		case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9', b == '.', b == '_', b == '-':
		default:
			return false
		}
	}
	return true
}

// CheckPut checks the arguments of Put.
func CheckPut(key string, c Content) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	if c.ReaderAt == nil || c.Size < 0 {
		return fmt.Errorf("put %s: content without bytes", key)
	}
	if c.Size > MaxObject {
		return fmt.Errorf("put %s: %d bytes are more than an object may have (%d)", key, c.Size, MaxObject)
	}
	return nil
}

// CheckGet checks the arguments of Get.
func CheckGet(key string, offset int64) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	if offset < 0 {
		return fmt.Errorf("get %s: negative offset %d", key, offset)
	}
	return nil
}

// CheckRange returns an error unless contentRange, the header Content-Range of an answer over HTTP, begins at offset. A
// server or proxy that passes over the header Range sends the whole object instead, with success.
func CheckRange(contentRange string, offset int64) error {
	if offset == 0 && contentRange == "" {
		return nil // the whole begins there too
	}
	if !strings.HasPrefix(contentRange, fmt.Sprintf("bytes %d-", offset)) {
		return fmt.Errorf("the server was asked for bytes from %d on and answered with range %q", offset, contentRange)
	}
	return nil
}

// CheckLevel checks the prefix of Prefixes: empty, or ending in '/'.
func CheckLevel(prefix string) error {
	if prefix != "" && !strings.HasSuffix(prefix, "/") {
		return fmt.Errorf("prefix %q does not end in '/': %w", prefix, ErrKey)
	}
	return CheckPrefix(prefix)
}

// unmetered is implemented by readers that count what is read from them against a bandwidth.
type unmetered interface{ Unmetered() io.ReaderAt }

// Unmetered returns the reader below r from which a driver reads what it does not send: to compare, to hash.
func Unmetered(r io.ReaderAt) io.ReaderAt {
	if u, ok := r.(unmetered); ok {
		return u.Unmetered()
	}
	return r
}
