package cli

import (
	"slices"
	"testing"

	"github.com/btcdecoded/holdfast/hostagent/restorer"
)

func TestOutermost(t *testing.T) {
	roots := []string{"/etc", "/srv/app", "/srv/other"}
	for _, tt := range []struct{ selected, want []string }{
		{nil, roots},
		{[]string{"/etc/ssh", "/etc/ssh/keys", "/etc/ssh2"}, []string{"/etc/ssh", "/etc/ssh2"}},
		{[]string{"/srv"}, []string{"/srv/app", "/srv/other"}},
		{[]string{"/"}, roots},
		{[]string{"/nowhere"}, nil},
	} {
		if got := outermost(roots, tt.selected); !slices.Equal(got, tt.want) {
			t.Errorf("%q: %q, want %q", tt.selected, got, tt.want)
		}
	}
}

func TestTargets(t *testing.T) {
	for _, tt := range []struct {
		of         targets
		path, want string
	}{
		{targets{}, "/etc/fstab", "/etc/fstab"},
		{targets{options: restorer.Options{Target: "/t"}, selected: []string{"/etc"}, single: true}, "/etc/a/b", "/t/a/b"},
		{targets{options: restorer.Options{Target: "/t"}, selected: []string{"/etc"}, single: true}, "/etc", "/t"},
		{targets{options: restorer.Options{Target: "/t"}, selected: []string{"/etc/fstab"}, file: true}, "/etc/fstab", "/t/fstab"},
		{targets{options: restorer.Options{Target: "/t"}, selected: []string{"/a", "/b"}}, "/a/x", "/t/a/x"},
		{targets{options: restorer.Options{Map: map[string]string{"/etc/": "/m", "/etc/ssh": "/s"}}}, "/etc/ssh/x", "/s/x"},
		{targets{options: restorer.Options{Map: map[string]string{"/etc/": "/m", "/etc/ssh": "/s"}}}, "/etc/fstab", "/m/fstab"},
	} {
		if got := tt.of.of(tt.path); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.path, got, tt.want)
		}
	}
}
