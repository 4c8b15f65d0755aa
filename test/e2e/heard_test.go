package e2e_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/btcdecoded/holdfast/infra/settings"
)

// event is one event of the bus.
type event struct {
	Type   string
	Detail struct {
		Job, Kind, Result, Code, Source, Error string
		Snapshot                               uint64
	}
}

// mail is one message to people.
type mail struct {
	Kind, Code string
	Text       string
}

// listenNow takes what the bus and the topic have carried since the last time. Events are told at least once: one that is in
// all of its detail what was heard before, to the nanosecond, is the same that came again.
func (w *world) listenNow() {
	w.t.Helper()
	for _, m := range w.messages(w.told) {
		var raw struct {
			Type   string          `json:"detail-type"`
			Detail json.RawMessage `json:"detail"`
		}
		w.must(json.Unmarshal([]byte(m), &raw))
		id := raw.Type + string(raw.Detail)
		if w.known[id] {
			continue
		}
		w.known[id] = true
		e := event{Type: raw.Type}
		w.must(json.Unmarshal(raw.Detail, &e.Detail))
		w.heard = append(w.heard, e)
	}
	for _, m := range w.messages(w.alerts) {
		var n struct {
			Message           string
			Subject           string
			MessageAttributes map[string]struct{ Value string }
		}
		w.must(json.Unmarshal([]byte(m), &n))
		w.mail = append(w.mail, mail{n.MessageAttributes["kind"].Value, n.MessageAttributes["code"].Value, n.Subject + "\n" + n.Message})
	}
}

// reports counts the events of a type by what key makes of them.
func (w *world) reports(kind string, key func(e event) string) map[string]int {
	w.t.Helper()
	w.listenNow()
	out := map[string]int{}
	for _, e := range w.heard {
		if e.Type == kind {
			out[key(e)]++
		}
	}
	return out
}

// newest returns the kind of the newest message with a code that has a text in it; empty: there is none.
func (w *world) newest(code, text string) (kind string) {
	w.t.Helper()
	w.listenNow()
	for _, m := range w.mail {
		if m.Code == code && strings.Contains(m.Text, text) {
			kind = m.Kind
		}
	}
	return kind
}

// tells lets monitor look until the newest message that people have about something is of a kind; one that they have
// already is enough.
func (w *world) tells(kind, code, text string) {
	w.t.Helper()
	w.until(fmt.Sprintf("a message %s %s about %s", kind, code, text), func() (bool, string) {
		w.tick(settings.Monitor, time.Now())
		ok := w.newest(code, text) == kind
		var said strings.Builder
		for _, m := range w.mail {
			fmt.Fprintf(&said, "%s %s: %.200s; ", m.Kind, m.Code, m.Text)
		}
		return ok, said.String()
	})
}
