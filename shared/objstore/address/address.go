// Package address parses the addresses of repositories. Use [Parse]; package open opens what they name.
package address

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Location is a parsed address.
type Location struct {
	Scheme string // "file", "s3", "gs" or "mem"
	Path   string // file: the directory, as given; mem: the name
	S3     S3
	GS     GS
}

// S3 is what an s3: address says; the fields are those of the driver's options.
type S3 struct {
	Bucket    string
	Prefix    string
	Region    string
	Endpoint  string
	Profile   string
	PathStyle bool
}

// GS is what a gs: address says; the fields are those of the driver's options.
type GS struct {
	Bucket   string
	Prefix   string
	Endpoint string
}

// Parse takes an address apart. Its errors never repeat what may be a password.
func Parse(address string) (Location, error) {
	scheme, rest, found := strings.Cut(address, ":")
	switch {
	case address == "":
		return Location{}, errors.New("open repository: no address")
	case strings.ContainsRune(address, 0):
		return Location{}, errors.New("open repository: the address holds a zero byte")
	case !found || strings.ContainsAny(scheme, "/.") || scheme == "":
		return Location{Scheme: "file", Path: address}, nil
	case scheme == "mem":
		return Location{Scheme: scheme, Path: rest}, nil
	case scheme != "file" && scheme != "s3" && scheme != "gs":
		return Location{}, Unknown(address, scheme)
	}
	u, err := url.Parse(address)
	if err != nil {
		// The library's error would repeat the address.
		return Location{}, fmt.Errorf("open repository: the address %s://… is not a URL: %w", scheme, cause(err))
	}
	if u.User != nil {
		return Location{}, fmt.Errorf("open repository: the address %s://…@%s holds credentials; "+
			"leave them to the environment, a profile or the machine's role", scheme, u.Host)
	}
	if u.Fragment != "" || u.RawFragment != "" || strings.HasSuffix(address, "#") {
		return Location{}, fmt.Errorf("open repository %s: '#' must be written %%23", redacted(u))
	}
	if scheme == "file" {
		return parseFile(u)
	}
	return parseBucket(u)
}

// cause is what went wrong in an address, without the address.
func cause(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

func parseFile(u *url.URL) (Location, error) {
	_, err := options(u, nil)
	switch {
	case err != nil:
		return Location{}, err
	case u.Host != "" && u.Host != "localhost":
		return Location{}, fmt.Errorf("open repository %s: three slashes begin a local path: file:///…", redacted(u))
	case u.Opaque != "" || !filepath.IsAbs(u.Path):
		return Location{}, fmt.Errorf("open repository %s: a file: address needs an absolute path, file:///…", redacted(u))
	}
	return Location{Scheme: "file", Path: u.Path}, nil
}

func parseBucket(u *url.URL) (Location, error) {
	if u.Host == "" || u.Opaque != "" || u.Port() != "" {
		return Location{}, fmt.Errorf("open repository %s: the form is %s://bucket/prefix", redacted(u), u.Scheme)
	}
	prefix := strings.Trim(u.Path, "/")
	for _, c := range strings.Split(prefix, "/") {
		if prefix != "" && (c == "" || c == "." || c == "..") {
			return Location{}, fmt.Errorf("open repository %s: the prefix has an empty, '.' or '..' part", redacted(u))
		}
	}
	l := Location{Scheme: u.Scheme}
	known := map[string]func(string) error{}
	switch u.Scheme {
	case "s3":
		l.S3 = S3{Bucket: u.Host, Prefix: prefix}
		known["region"] = text(&l.S3.Region)
		known["endpoint"] = endpoint(&l.S3.Endpoint)
		known["profile"] = text(&l.S3.Profile)
		known["path_style"] = boolean(&l.S3.PathStyle)
	case "gs":
		l.GS = GS{Bucket: u.Host, Prefix: prefix}
		known["endpoint"] = endpoint(&l.GS.Endpoint)
	}
	given, err := options(u, known)
	if err != nil {
		return Location{}, err
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if err := known[name](given[name]); err != nil {
			return Location{}, fmt.Errorf("open repository %s: option %s: %w", redacted(u), name, err)
		}
	}
	return l, nil
}

// options returns the options of the address, each of which must be known and given once.
func options(u *url.URL, known map[string]func(string) error) (map[string]string, error) {
	values, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, fmt.Errorf("open repository %s: options: %w", redacted(u), cause(err))
	}
	given := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		switch {
		case known[name] == nil && len(known) == 0:
			return nil, fmt.Errorf("open repository %s: unknown option %q (%s: has none)", redacted(u), name, u.Scheme)
		case known[name] == nil:
			return nil, fmt.Errorf("open repository %s: unknown option %q (%s: has %s)", redacted(u), name, u.Scheme,
				strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		case len(values[name]) > 1:
			return nil, fmt.Errorf("open repository %s: option %s is given twice", redacted(u), name)
		}
		given[name] = values[name][0]
	}
	return given, nil
}

func text(to *string) func(string) error {
	return func(v string) error {
		if v == "" {
			return errors.New("is empty")
		}
		*to = v
		return nil
	}
}

func boolean(to *bool) func(string) error {
	return func(v string) (err error) {
		if *to, err = strconv.ParseBool(v); err != nil {
			return errors.New("is neither true nor false")
		}
		return nil
	}
}

func endpoint(to *string) func(string) error {
	return func(v string) error {
		u, err := url.Parse(v)
		switch {
		case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
			return errors.New("must be the URL of a server, https://host")
		case u.User != nil:
			return errors.New("holds credentials")
		case u.RawQuery != "" || u.Fragment != "":
			return errors.New("has more than a path")
		}
		*to = v
		return nil
	}
}

// redacted is the address without its options, whose values may be anything.
func redacted(u *url.URL) string {
	plain := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	return plain.String()
}

// Unknown is the error for a kind of address that nobody knows.
func Unknown(address, scheme string) error {
	if !strings.HasPrefix(address, scheme+"://") {
		return fmt.Errorf("open repository: unknown kind of address %q (known: a path, file://, s3://, gs://); "+
			"a path with a ':' is written ./%s:…", scheme+":", scheme)
	}
	return fmt.Errorf("open repository: unknown kind of address %q (known: a path, file://, s3://, gs://)", scheme+"://")
}
