package e2e_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// event is one event of the bus.
type event struct {
	Type   string `json:"detail-type"`
	Detail struct {
		Job, Kind, Result, Code, Source, Error string
		Snapshot                               uint64
	} `json:"detail"`
}

// mail is one message to people.
type mail struct {
	Kind, Code string
	Text       string
}

// listenNow takes what the bus and the topic have carried since the last time.
func (w *world) listenNow() {
	w.t.Helper()
	for _, m := range w.messages(w.told) {
		var e event
		w.must(json.Unmarshal([]byte(m), &e))
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

// letter returns the first message of a kind and code, after the first so many, that has a text in it.
func (w *world) letter(after int, kind, code, text string) (mail, bool) {
	w.t.Helper()
	w.listenNow()
	for _, m := range w.mail[min(after, len(w.mail)):] {
		if m.Kind == kind && m.Code == code && strings.Contains(m.Text, text) {
			return m, true
		}
	}
	return mail{}, false
}

// tellsBy lets monitor look until people get a message; one that they have already is enough.
func (w *world) tellsBy(limit time.Duration, kind, code, text string) {
	w.t.Helper()
	w.tellsAfter(0, limit, kind, code, text)
}

// tellsAfter is tellsBy for messages after the first so many.
func (w *world) tellsAfter(after int, limit time.Duration, kind, code, text string) {
	w.t.Helper()
	w.within(limit, fmt.Sprintf("a message %s %s about %s", kind, code, text), func() (bool, string) {
		w.tick("monitor", time.Now())
		_, ok := w.letter(after, kind, code, text)
		var said strings.Builder
		for _, m := range w.mail {
			fmt.Fprintf(&said, "%s %s: %.200s; ", m.Kind, m.Code, m.Text)
		}
		return ok, said.String()
	})
}
