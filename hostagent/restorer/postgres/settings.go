package postgres

import (
	"strings"

	"github.com/btcdecoded/holdfast/hostagent/pgserver"
)

// The lines around what a restore adds to postgresql.auto.conf.
const (
	settingsBegin = "# Added by holdfast for a recovery, and removed when it is over."
	settingsEnd   = "# End of what holdfast has added."
)

// quote writes a value as configuration files want it.
func quote(value string) string {
	return "'" + strings.NewReplacer("'", "''", `\`, `\\`, "\n", `\n`, "\r", `\r`).Replace(value) + "'"
}

// addSettings puts settings at the end of postgresql.auto.conf, where they win over what stands before. What an earlier
// restore has added is taken out; all else stays as it is.
func addSettings(text string, settings []pgserver.Setting) string {
	text = removeSettings(text)
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	var b strings.Builder
	b.WriteString(text + settingsBegin + "\n")
	for _, s := range settings {
		b.WriteString(s.Name + " = " + quote(s.Value) + "\n")
	}
	b.WriteString(settingsEnd + "\n")
	return b.String()
}

// removeSettings takes out what restores have added. A server that was told ALTER SYSTEM meanwhile has written the file
// anew, without comments: then the names tell, with the command that only a restore writes.
func removeSettings(text string) string {
	var b strings.Builder
	inside := false
	for line := range strings.Lines(text) {
		switch strings.TrimRight(line, "\r\n") {
		case settingsBegin:
			inside = true
			continue
		case settingsEnd:
			if inside {
				inside = false
				continue
			}
		}
		if !inside {
			b.WriteString(line)
		}
	}
	if out := b.String(); strings.Contains(out, spoolName+"/") {
		return withoutRewritten(out)
	}
	return b.String()
}

// withoutRewritten drops the settings of a recovery from a file that the server has written anew.
func withoutRewritten(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if name, _, ok := settingOf(line); ok && (name == "restore_command" || strings.HasPrefix(name, "recovery_target")) {
			continue
		}
		b.WriteString(line)
	}
	return b.String()
}

// settingOf reads a line of a configuration file: name = value, quotes or not, with a comment or not.
func settingOf(line string) (name, value string, ok bool) {
	line = strings.TrimSpace(line)
	if line == "" || line[0] == '#' {
		return "", "", false
	}
	end := strings.IndexFunc(line, func(r rune) bool { return r == '=' || r == ' ' || r == '\t' })
	if end <= 0 {
		return "", "", false
	}
	name = strings.ToLower(line[:end])
	rest := strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line[end:]), "="))
	if !strings.HasPrefix(rest, "'") {
		rest, _, _ = strings.Cut(rest, "#")
		return name, strings.TrimSpace(rest), true
	}
	var b strings.Builder
	for i := 1; i < len(rest); i++ {
		switch {
		case rest[i] == '\'' && i+1 < len(rest) && rest[i+1] == '\'', rest[i] == '\\' && i+1 < len(rest):
			i++
			b.WriteByte(rest[i])
		case rest[i] == '\'':
			return name, b.String(), true
		default:
			b.WriteByte(rest[i])
		}
	}
	return "", "", false
}

// lookupSetting finds a setting in a configuration file: the last one counts.
func lookupSetting(text, name string) (string, bool) {
	value, found := "", false
	for line := range strings.Lines(text) {
		if n, v, ok := settingOf(line); ok && n == name {
			value, found = v, true
		}
	}
	return value, found
}
