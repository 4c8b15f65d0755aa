package wire

import (
	"fmt"
	"strconv"
	"strings"
)

// MinMajor is the oldest version that is understood: the first with backup manifests.
const MinMajor = 13

// Version is that of a server.
type Version struct {
	Major, Minor int    // 15, 18; a version that was not released yet ("18rc1") has minor 0
	Text         string // as the server says it
}

// String is the text without what a packager has added.
func (v Version) String() string {
	text, _, _ := strings.Cut(v.Text, " ")
	return text
}

// ParseVersion reads server_version: "15.18 (Debian 15.18-0+deb12u1)", "18rc1", "19devel".
func ParseVersion(text string) (Version, error) {
	digits := func(s string) int {
		n := 0
		for n < len(s) && n < 6 && s[n] >= '0' && s[n] <= '9' {
			n++
		}
		return n
	}
	n := digits(text)
	if n == 0 {
		return Version{}, fmt.Errorf("version %q of the server: want a number", text)
	}
	v := Version{Text: text}
	v.Major, _ = strconv.Atoi(text[:n]) // digits only
	if rest := text[n:]; strings.HasPrefix(rest, ".") {
		v.Minor, _ = strconv.Atoi(rest[1 : 1+digits(rest[1:])]) // none: 0
	}
	return v, nil
}
