package logical

import (
	"fmt"
	"slices"
	"strings"
)

// Identifier quotes a name for SQL.
func Identifier(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// Literal quotes a text for SQL, whatever standard_conforming_strings says.
func Literal(text string) string {
	quoted := "'" + strings.ReplaceAll(text, "'", "''") + "'"
	if strings.Contains(text, `\`) {
		return " E" + strings.ReplaceAll(quoted, `\`, `\\`)
	}
	return quoted
}

// The providers of locales as pg_database has them.
const (
	providerLibc    = "c"
	providerICU     = "i"
	providerBuiltin = "b"
)

// Versions from which on CREATE DATABASE knows something.
const (
	knowsProviders = 15
	knowsRules     = 16
	knowsBuiltin   = 17
)

// Target is the server on which a database is made.
type Target struct {
	Major       int
	Owner       bool // the owner exists there, and is to own it
	Tablespaces []string
}

// Create is the statement that makes a database of this name with the properties. Errors: what the server is too old for.
func (p *Properties) Create(name string, on Target) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "CREATE DATABASE %s TEMPLATE template0 ENCODING %s", Identifier(name), Literal(p.Encoding))
	fmt.Fprintf(&b, " LC_COLLATE %s LC_CTYPE %s", Literal(p.Collate), Literal(p.CType))
	switch {
	case p.Provider == providerICU && on.Major < knowsProviders, p.Provider == providerBuiltin && on.Major < knowsBuiltin,
		p.Rules != "" && on.Major < knowsRules:
		return "", fmt.Errorf("database %s: PostgreSQL %d does not know its locale provider", p.Name, on.Major)
	case p.Provider == providerICU:
		fmt.Fprintf(&b, " LOCALE_PROVIDER icu ICU_LOCALE %s", Literal(p.Locale))
		if p.Rules != "" {
			fmt.Fprintf(&b, " ICU_RULES %s", Literal(p.Rules))
		}
	case p.Provider == providerBuiltin:
		fmt.Fprintf(&b, " LOCALE_PROVIDER builtin BUILTIN_LOCALE %s", Literal(p.Locale))
	case p.Provider == providerLibc && on.Major >= knowsProviders:
		b.WriteString(" LOCALE_PROVIDER libc")
	}
	if on.Owner {
		fmt.Fprintf(&b, " OWNER %s", Identifier(p.Owner))
	}
	if slices.Contains(on.Tablespaces, p.Tablespace) {
		fmt.Fprintf(&b, " TABLESPACE %s", Identifier(p.Tablespace))
	}
	if p.Limit >= 0 {
		fmt.Fprintf(&b, " CONNECTION LIMIT %d", p.Limit)
	}
	return b.String(), nil
}

// listed are the settings whose value is a list of names: src/bin/pg_dump/dumputils.c, variable_is_guc_list_quote.
var listed = []string{
	"local_preload_libraries", "search_path", "session_preload_libraries", "shared_preload_libraries", "temp_tablespaces", "unix_socket_directories",
}

// Alter are the statements that give a database of this name the grants and settings that the properties say. known
// reports whether a role exists; what is for others is left out, and named.
func (p *Properties) Alter(name string, known func(role string) bool) (statements, left []string) {
	database := Identifier(name)
	if p.Grants != nil {
		statements = append(statements, "REVOKE ALL ON DATABASE "+database+" FROM PUBLIC")
		if known(p.Owner) {
			statements = append(statements, fmt.Sprintf("REVOKE ALL ON DATABASE %s FROM %s", database, Identifier(p.Owner)))
		}
		for _, g := range *p.Grants {
			to := "PUBLIC"
			if g.Grantee != "" {
				to = Identifier(g.Grantee)
			}
			if g.Grantee != "" && !known(g.Grantee) || !privilege(g.Privilege) {
				left = append(left, fmt.Sprintf("%s for role %s", g.Privilege, g.Grantee))
				continue
			}
			statement := fmt.Sprintf("GRANT %s ON DATABASE %s TO %s", g.Privilege, database, to)
			if g.Grantable {
				statement += " WITH GRANT OPTION"
			}
			statements = append(statements, statement)
		}
	}
	for _, s := range p.Settings {
		key, value, ok := strings.Cut(s.Value, "=")
		if !ok || s.Role != "" && !known(s.Role) {
			left = append(left, fmt.Sprintf("setting %s of role %s", key, s.Role))
			continue
		}
		subject := "DATABASE " + database
		if s.Role != "" {
			subject = fmt.Sprintf("ROLE %s IN DATABASE %s", Identifier(s.Role), database)
		}
		statements = append(statements, fmt.Sprintf("ALTER %s SET %s TO %s", subject, settingName(key), settingValue(key, value)))
	}
	return statements, left
}

// privilege reports whether a word is a right on databases. Others come from a newer server, or from somewhere else.
func privilege(word string) bool {
	return slices.Contains([]string{"CONNECT", "TEMPORARY", "CREATE"}, word)
}

// settingName quotes the name of a setting; those of extensions have a prefix.
func settingName(key string) string {
	parts := strings.Split(key, ".")
	for i := range parts {
		parts[i] = Identifier(parts[i])
	}
	return strings.Join(parts, ".")
}

func settingValue(key, value string) string {
	if !slices.Contains(listed, strings.ToLower(key)) {
		return Literal(value)
	}
	var out []string
	for _, name := range names(value) {
		out = append(out, Literal(name))
	}
	if len(out) == 0 {
		return "''"
	}
	return strings.Join(out, ", ")
}

// names splits a list of names, some of which may be quoted.
func names(list string) []string {
	var out []string
	for rest := strings.TrimSpace(list); rest != ""; {
		var name string
		if strings.HasPrefix(rest, `"`) {
			end := 1
			for end < len(rest) && (rest[end] != '"' || end+1 < len(rest) && rest[end+1] == '"') {
				if rest[end] == '"' {
					end++
				}
				end++
			}
			name = strings.ReplaceAll(rest[1:min(end, len(rest))], `""`, `"`)
			rest = rest[min(end+1, len(rest)):]
			_, rest, _ = strings.Cut(rest, ",")
		} else {
			name, rest, _ = strings.Cut(rest, ",")
			name = strings.TrimSpace(name)
		}
		out = append(out, name)
		rest = strings.TrimSpace(rest)
	}
	return out
}

// Comment is the statement that sets the comment of a database.
func Comment(name, comment string) string {
	value := "NULL"
	if comment != "" {
		value = Literal(comment)
	}
	return fmt.Sprintf("COMMENT ON DATABASE %s IS %s", Identifier(name), value)
}

// Rename is the statement that renames a database.
func Rename(from, to string) string {
	return fmt.Sprintf("ALTER DATABASE %s RENAME TO %s", Identifier(from), Identifier(to))
}

// maxName is the longest name of a database, in bytes.
const maxName = 63

// Derived is a name that begins with that of a database, as far as there is room, and ends in suffix.
func Derived(database, suffix string) string {
	room := max(0, maxName-len(suffix))
	for len(database) > room || !validEnd(database) {
		database = database[:len(database)-1]
	}
	return database + suffix
}

// validEnd reports whether a name does not end amid a character.
func validEnd(s string) bool { return strings.ToValidUTF8(s, "") == s || len(s) == 0 }
