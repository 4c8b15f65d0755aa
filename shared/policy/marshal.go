package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// Marshal writes the policy as YAML, hosts and sources in the order of their names, defaults included. The result
// parses to an equal policy; comments and the order of the original file are not kept.
func (p *Policy) Marshal() ([]byte, error) {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(p.whole()); err != nil {
		return nil, fmt.Errorf("marshal policy: %w", err)
	}
	// JSON's order is that of the types and of the names; only the style changes from here.
	dec := json.NewDecoder(&text)
	dec.UseNumber()
	w := &yamlWriter{dec: dec}
	if err := w.value(0, true); err != nil {
		return nil, fmt.Errorf("marshal policy: %w", err)
	}
	return w.out.Bytes(), nil
}

// yamlWriter rewrites JSON as block-style YAML.
type yamlWriter struct {
	dec *json.Decoder
	out bytes.Buffer
}

func (w *yamlWriter) indent(depth int) { w.out.WriteString(strings.Repeat("  ", depth)) }

// value writes the next value. The cursor stands after "key:" or "-", or at the start of a line (fresh); it stands at
// the start of a line afterwards.
func (w *yamlWriter) value(depth int, fresh bool) error {
	tok, err := w.dec.Token()
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	switch v := tok.(type) {
	case json.Delim:
		if !w.dec.More() {
			fmt.Fprintf(&w.out, " %s\n", map[json.Delim]string{'{': "{}", '[': "[]"}[v])
			_, err := w.dec.Token()
			return err
		}
		if v == '{' {
			return w.mapping(depth, fresh)
		}
		return w.list(depth)
	case string:
		fmt.Fprintf(&w.out, " %s\n", scalar(v))
	default:
		fmt.Fprintf(&w.out, " %v\n", v)
	}
	return nil
}

// mapping writes keys and values up to the closing brace. After "-" the first key stands in the same line.
func (w *yamlWriter) mapping(depth int, fresh bool) error {
	inList := !fresh && bytes.HasSuffix(w.out.Bytes(), []byte("-"))
	if !fresh && !inList {
		w.out.WriteByte('\n')
	}
	for first := true; w.dec.More(); first = false {
		key, err := w.dec.Token()
		if err != nil {
			return err
		}
		if first && inList {
			w.out.WriteByte(' ')
		} else {
			w.indent(depth)
		}
		name, _ := key.(string)
		fmt.Fprintf(&w.out, "%s:", scalar(name))
		if err := w.value(depth+1, false); err != nil {
			return err
		}
	}
	_, err := w.dec.Token()
	return err
}

func (w *yamlWriter) list(depth int) error {
	w.out.WriteByte('\n')
	for w.dec.More() {
		w.indent(depth)
		w.out.WriteByte('-')
		if err := w.value(depth+1, false); err != nil {
			return err
		}
	}
	_, err := w.dec.Token()
	return err
}

var (
	plainWord  = regexp.MustCompile(`^[A-Za-z/][A-Za-z0-9_./@?=+&:-]*$`)
	plainValue = regexp.MustCompile(`^[0-9]+([kMGTP]i?B|[wdhms]|ms)([0-9]+([wdhms]|ms))*$`)
)

// scalar writes a text bare where every reader of YAML takes it for text, else quoted as JSON does, which is YAML too.
func scalar(s string) string {
	words := []string{"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
	bare := plainWord.MatchString(s) && !strings.HasSuffix(s, ":") && !slices.Contains(words, strings.ToLower(s))
	if bare || plainValue.MatchString(s) {
		return s
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string always encodes, and a bytes.Buffer takes everything
	return strings.TrimSuffix(b.String(), "\n")
}
