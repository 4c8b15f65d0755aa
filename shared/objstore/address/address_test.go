package address_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/objstore/address"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]address.Location{
		"/var/backup":             {Scheme: "file", Path: "/var/backup"},
		"backup":                  {Scheme: "file", Path: "backup"},
		"./a:b":                   {Scheme: "file", Path: "./a:b"},
		"/mnt/a:b?c#d":            {Scheme: "file", Path: "/mnt/a:b?c#d"},
		"file:///var/a%20b":       {Scheme: "file", Path: "/var/a b"},
		"file://localhost/x":      {Scheme: "file", Path: "/x"},
		"mem:one":                 {Scheme: "mem", Path: "one"},
		"s3://bucket":             {Scheme: "s3", S3: address.S3{Bucket: "bucket"}},
		"s3://my.bucket/a/b/":     {Scheme: "s3", S3: address.S3{Bucket: "my.bucket", Prefix: "a/b"}},
		"gs://bucket/x":           {Scheme: "gs", GS: address.GS{Bucket: "bucket", Prefix: "x"}},
		"s3://b?path_style=false": {Scheme: "s3", S3: address.S3{Bucket: "b"}},
		"gs://b?endpoint=http://127.0.0.1:1": {
			Scheme: "gs", GS: address.GS{Bucket: "b", Endpoint: "http://127.0.0.1:1"},
		},
		"s3://b/p?region=eu-west-1&endpoint=https%3A%2F%2Fs3.example.com%3A9000&profile=x&path_style=true": {
			Scheme: "s3", S3: address.S3{
				Bucket: "b", Prefix: "p", Region: "eu-west-1", Endpoint: "https://s3.example.com:9000", Profile: "x", PathStyle: true,
			},
		},
	} {
		got, err := address.Parse(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", text, d)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for text, says := range map[string]string{
		"":                                   "no address",
		"ftp://host/x":                       "file://, s3://, gs://",
		"azure:container":                    "./azure:",
		"s3:bucket/x":                        "s3://bucket/prefix",
		"s3:///x":                            "s3://bucket/prefix",
		"s3://bucket:9000/x":                 "s3://bucket/prefix",
		"gs://":                              "gs://bucket/prefix",
		"s3://key:hunter2@bucket/x":          "credentials",
		"gs://hunter2@bucket/x":              "credentials",
		"file://user:hunter2@localhost/x":    "credentials",
		"s3:key:hunter2@bucket/x":            "s3://bucket/prefix",
		"s3://b?secret_key=hunter2":          "endpoint, path_style, profile, region",
		"gs://b?region=x":                    "(gs: has endpoint)",
		"file:///x?region=y":                 "has none",
		"file://var/backup":                  "three slashes",
		"file:relative":                      "absolute path",
		"s3://b/a/../c":                      "'..'",
		"s3://b//c//d":                       "empty",
		"s3://b?region=a&region=b":           "twice",
		"s3://b?region=":                     "empty",
		"s3://b?path_style=maybe":            "neither",
		"s3://b?endpoint=localhost:1":        "URL of a server",
		"s3://b?endpoint=http://a:hunter2@h": "credentials",
		"s3://b?endpoint=http://h?x=hunter2": "path",
		"s3://b/x#y":                         "%23",
		"s3://b/%zz?x=hunter2":               "not a URL",
		"s3://b?%zz=hunter2":                 "options",
		"a\x00b":                             "zero byte",
	} {
		_, err := address.Parse(text)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: got %v, want %q", text, err, says)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: the secret is repeated: %v", text, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"/a", "a:b", "s3://b/p?region=x", "gs://b", "file:///x", "s3://u:p@b", "://", "mem:", "s3://[::1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		l, err := address.Parse(text)
		if err != nil {
			return
		}
		switch l.Scheme {
		case "file", "mem":
		case "s3":
			if l.S3.Bucket == "" {
				t.Error("no bucket")
			}
		case "gs":
			if l.GS.Bucket == "" {
				t.Error("no bucket")
			}
		default:
			t.Errorf("scheme %q", l.Scheme)
		}
	})
}
