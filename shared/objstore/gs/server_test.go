package gs_test

import (
	"crypto/md5" //nolint:gosec // what the API states
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// versioned is a small server that speaks as much of the JSON API as the driver does, with generations as
// https://cloud.google.com/storage/docs/object-versioning describes them, and pages of a few objects. fake-gcs-server
// passes over generations of deletions and conditions of copies.
type versioned struct {
	mu       sync.Mutex
	disabled bool   // guarded by mu, like the others
	denied   string // method and end of the path of requests that are denied
	clock    int64  // of generations
	objects  []*generation
}

type generation struct {
	Name        string `json:"name"`
	Generation  int64  `json:"generation,string"`
	Size        uint64 `json:"size,string"`
	Crc32c      string `json:"crc32c"`
	Md5Hash     string `json:"md5Hash"`
	TimeCreated string `json:"timeCreated"`
	TimeDeleted string `json:"timeDeleted,omitempty"`
	data        []byte
}

func startVersioned(t *testing.T) (*versioned, string) {
	t.Helper()
	v := &versioned{clock: time.Now().UnixMicro()}
	s := httptest.NewServer(v)
	t.Cleanup(s.Close)
	return v, s.URL
}

func (v *versioned) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v.mu.Lock()
	defer v.mu.Unlock()
	path := strings.TrimPrefix(r.URL.EscapedPath(), "/storage/v1/b/bucket")
	switch {
	case v.denied != "" && strings.HasSuffix(r.Method+" "+path, v.denied):
		w.WriteHeader(http.StatusForbidden)
	case strings.HasPrefix(path, "/upload/"):
		v.insert(w, r)
	case path == "":
		answer(w, map[string]any{"versioning": map[string]bool{"enabled": !v.disabled}})
	case path == "/o":
		v.list(w, r.URL.Query())
	case strings.Contains(path, "/rewriteTo/"):
		v.rewrite(w, r, path)
	default:
		name, _ := url.PathUnescape(strings.TrimPrefix(path, "/o/"))
		v.one(w, r, name)
	}
}

func answer(w http.ResponseWriter, doc any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(doc)
}

// find returns the live generation, or the one that is asked for.
func (v *versioned) find(name, wanted string) *generation {
	for _, o := range v.objects {
		if o.Name == name && (wanted == "" && o.TimeDeleted == "" || wanted == strconv.FormatInt(o.Generation, 10)) {
			return o
		}
	}
	return nil
}

func (v *versioned) now() string {
	v.clock++
	return time.UnixMicro(v.clock).UTC().Format(time.RFC3339Nano)
}

// meets reports whether the condition for the live generation holds.
func (v *versioned) meets(name, condition string) bool {
	live := "0"
	if o := v.find(name, ""); o != nil {
		live = strconv.FormatInt(o.Generation, 10)
	}
	return condition == "" || condition == live
}

func (v *versioned) add(name string, data []byte) *generation {
	at := v.now()
	if old := v.find(name, ""); old != nil {
		old.TimeDeleted = at
		if v.disabled {
			v.remove(old)
		}
	}
	sum := md5.Sum(data) //nolint:gosec // see above
	crc := binary.BigEndian.AppendUint32(nil, crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)))
	o := &generation{
		Name: name, Generation: v.clock, Size: uint64(len(data)), TimeCreated: at, data: data,
		Crc32c: base64.StdEncoding.EncodeToString(crc), Md5Hash: base64.StdEncoding.EncodeToString(sum[:]),
	}
	v.objects = append(v.objects, o)
	return o
}

func (v *versioned) remove(o *generation) {
	v.objects = slices.DeleteFunc(v.objects, func(x *generation) bool { return x == o })
}

func (v *versioned) insert(w http.ResponseWriter, r *http.Request) {
	_, params, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	parts := multipart.NewReader(r.Body, params["boundary"])
	var about generation
	first, err := parts.NextPart()
	if err == nil {
		err = json.NewDecoder(first).Decode(&about)
	}
	var data []byte
	if second, perr := parts.NextPart(); err == nil && perr == nil {
		data, err = io.ReadAll(second)
	}
	switch {
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadRequest)
	case !v.meets(about.Name, r.URL.Query().Get("ifGenerationMatch")):
		w.WriteHeader(http.StatusPreconditionFailed)
	default:
		answer(w, v.add(about.Name, data))
	}
}

func (v *versioned) list(w http.ResponseWriter, q url.Values) {
	var all []*generation
	for _, o := range v.objects {
		if strings.HasPrefix(o.Name, q.Get("prefix")) && (o.TimeDeleted == "" || q.Get("versions") == "true") {
			all = append(all, o)
		}
	}
	slices.SortFunc(all, func(a, b *generation) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return int(a.Generation - b.Generation)
	})
	from, _ := strconv.Atoi(q.Get("pageToken"))
	page := map[string]any{"items": all[from:min(len(all), from+3)]}
	if from+3 < len(all) {
		page["nextPageToken"] = strconv.Itoa(from + 3)
	}
	answer(w, page)
}

func (v *versioned) rewrite(w http.ResponseWriter, r *http.Request, path string) {
	from, to, _ := strings.Cut(strings.TrimPrefix(path, "/o/"), "/rewriteTo/b/bucket/o/")
	source, _ := url.PathUnescape(from)
	target, _ := url.PathUnescape(to)
	q := r.URL.Query()
	o := v.find(source, q.Get("sourceGeneration"))
	switch {
	case o == nil:
		w.WriteHeader(http.StatusNotFound)
	case !v.meets(target, q.Get("ifGenerationMatch")):
		w.WriteHeader(http.StatusPreconditionFailed)
	case q.Get("rewriteToken") == "": // each takes two calls
		answer(w, map[string]any{"done": false, "rewriteToken": "more"})
	default:
		answer(w, map[string]any{"done": true, "resource": v.add(target, o.data)})
	}
}

func (v *versioned) one(w http.ResponseWriter, r *http.Request, name string) {
	wanted := r.URL.Query().Get("generation")
	o := v.find(name, wanted)
	switch {
	case o == nil:
		w.WriteHeader(http.StatusNotFound)
	case r.Method == http.MethodDelete && (wanted != "" || v.disabled):
		v.remove(o)
		w.WriteHeader(http.StatusNoContent)
	case r.Method == http.MethodDelete:
		o.TimeDeleted = v.now()
		w.WriteHeader(http.StatusNoContent)
	case r.URL.Query().Get("alt") == "media":
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(o.data)))
	default:
		answer(w, o)
	}
}

// String shows what there is, for a test that fails.
func (v *versioned) String() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	out := ""
	for _, o := range v.objects {
		out += fmt.Sprintf("%s %d %s %s %.3x\n", o.Name, o.Generation, o.TimeCreated, o.TimeDeleted, sha256.Sum256(o.data))
	}
	return out
}
