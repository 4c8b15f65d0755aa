package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
	"golang.org/x/term"
)

// print writes a command's result: v as one JSON document with --json, else what text writes; with --quiet, nothing.
func (a *app) print(v any, text func(w io.Writer)) error {
	if a.flags.json {
		return json.NewEncoder(a.stdio.Out).Encode(v)
	}
	if !a.flags.quiet {
		text(a.stdio.Out)
	}
	return nil
}

// warn tells the user about something that needs attention but does not stop the command.
func (a *app) warn(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if a.flags.json {
		line, _ := json.Marshal(map[string]string{"warning": text})
		fmt.Fprintf(a.stdio.Err, "%s\n", line)
		return
	}
	if _, ok := terminal(a.stdio.Err); ok {
		fmt.Fprint(a.stdio.Err, "\r\x1b[K") // a line of progress may stand there
	}
	fmt.Fprintf(a.stdio.Err, "%s %s\n", a.paint(a.stdio.Err, yellow, "warning:"), text)
}

// output is standard output. It remembers the first error, so that no command has to look at each write: a listing that
// was cut off because the disk is full must not end as if it were whole.
type output struct {
	w   io.Writer
	err error
}

func (o *output) Write(p []byte) (int, error) {
	if o.err != nil {
		return 0, o.err
	}
	n, err := o.w.Write(p)
	o.err = err
	return n, err
}

// judge adds to how a command ended that its output did not arrive, unless it failed for another reason.
func (o *output) judge(err error) error {
	_, ended := err.(outcome) //nolint:errorlint // an outcome is never wrapped
	if o.err == nil || err != nil && !ended {
		return err
	}
	return fmt.Errorf("print the result: %w", o.err)
}

// terminal reports whether w is a terminal, and its width in columns.
func terminal(w io.Writer) (width int, ok bool) {
	if o, is := w.(*output); is {
		w = o.w
	}
	f, isFile := w.(*os.File)
	if !isFile || !term.IsTerminal(int(f.Fd())) {
		return 0, false
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width < 20 {
		width = 80
	}
	return width, true
}

type colour string

const (
	red    colour = "31"
	green  colour = "32"
	yellow colour = "33"
)

// paint colours s where w is a terminal and the user did not decline (https://no-color.org).
func (a *app) paint(w io.Writer, c colour, s string) string {
	if no, _ := a.env("NO_COLOR"); no != "" {
		return s
	}
	if t, _ := a.env("TERM"); t == "dumb" {
		return s
	}
	if _, ok := terminal(w); !ok {
		return s
	}
	return "\x1b[" + string(c) + "m" + s + "\x1b[0m"
}

// table lays rows out in columns that are two spaces apart. Columns whose heading begins with '>' are right-aligned.
type table struct {
	head []string
	rows [][]string
}

func newTable(head ...string) *table { return &table{head: head} }

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) write(w io.Writer) {
	right := make([]bool, len(t.head))
	head := make([]string, len(t.head))
	for i, h := range t.head {
		head[i], right[i] = strings.CutPrefix(h, ">")
	}
	width := make([]int, len(head))
	for _, row := range append([][]string{head}, t.rows...) {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range append([][]string{head}, t.rows...) {
		var line strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell))
			if i > 0 {
				line.WriteString("  ")
			}
			if right[i] {
				line.WriteString(pad + cell)
			} else {
				line.WriteString(cell + pad)
			}
		}
		fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
	}
}

func size(n uint64) string { return humanize.IBytes(n) }

func count(n uint64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return humanize.Comma(int64(min(n, 1<<62))) + " " + many
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }

// duration is d in the two units that matter.
func duration(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%.0fs", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
}

// printable shows any path on one line: what is no printable UTF-8 is escaped, so that a hostile name cannot write to
// the terminal or forge a line.
func printable(path string) string {
	if utf8.ValidString(path) && strings.IndexFunc(path, func(r rune) bool { return r == '\\' || !strconv.IsPrint(r) }) < 0 {
		return path
	}
	q := strconv.Quote(path)
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}

// note tells the user something that is good to know.
func (a *app) note(format string, args ...any) {
	if !a.flags.json && !a.flags.quiet {
		fmt.Fprintf(a.stdio.Err, format+"\n", args...)
	}
}
