package snapshot

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// ErrUnsupported says that bytes are of a later version of the format, or need an addition to it that this program does
// not know. That is no damage: a newer program reads them.
var ErrUnsupported = errors.New("this needs a newer version of holdfast")

// Requirements is what any signed document can ask of who reads it; see docs/format.md, "Compatibility".
type Requirements struct {
	// Requires names additions to the format without which the document, and what it leads to, can't be used as they are
	// meant. Version 1 has none: writers leave it out.
	Requires []string `json:"requires,omitempty"`
}

// Unmarshal parses the payload of a signed document into v. Members that v does not have are ignored, unless the document
// says that they must be known.
//
// Errors: ErrUnsupported, ErrFormat.
func Unmarshal(payload []byte, v any) error {
	// A document that needs an addition may look different in other ways too: this is asked first.
	if bytes.Contains(payload, []byte(`"requires"`)) {
		var r Requirements
		if err := json.Unmarshal(payload, &r); err != nil {
			return fmt.Errorf("%w: %w", ErrFormat, err)
		}
		if len(r.Requires) > 0 {
			return fmt.Errorf("%w: it requires %s", ErrUnsupported, brief(strings.Join(r.Requires, ", ")))
		}
	}
	if err := json.Unmarshal(payload, v); err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return nil
}
