package arch_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/btcdecoded/holdfast/"

// layers lists, for each part of the tree, what else of ours it may import besides packages below itself. The longest
// matching prefix counts. A part that is not listed here fails, so that a new one is placed on purpose.
var layers = map[string][]string{
	// Nouns and mechanisms.
	"shared/snapshot": {"shared/postgres"},
	"shared/objstore": {},
	"shared/chunker":  {},
	"shared/sqlite":   {},
	"shared/postgres": {},
	"shared/seal":     {"shared/snapshot"},
	"shared/keyring":  {"shared/snapshot", "shared/seal"},
	// What decides.
	"shared/policy":     {"shared/snapshot"},
	"shared/retention":  {"shared/snapshot", "shared/policy"},
	"shared/recovery":   {"shared/snapshot", "shared/policy"},
	"shared/compliance": {"shared/snapshot", "shared/policy", "shared/retention", "shared/recovery"},
	"shared/schedule":   {"shared/snapshot", "shared/policy", "events"},
	// Built on both.
	"shared/repository": {
		"shared/snapshot", "shared/postgres", "shared/objstore", "shared/chunker", "shared/seal", "shared/keyring",
		"shared/policy", "shared/retention", "shared/recovery",
	},
	"shared/repository/layout": {"shared/snapshot"},
	// What is observed and told.
	"shared/observe": {
		"shared/snapshot", "shared/objstore", "shared/policy", "shared/retention", "shared/recovery", "shared/compliance", "shared/repository",
		"shared/control", "shared/schedule", "shared/statestore", "events",
	},
	"shared/alert":    {"shared/policy", "shared/compliance"},
	"shared/emf":      {},
	"shared/approval": {"shared/snapshot", "shared/policy", "events"},
	// What the control plane keeps.
	"shared/statestore": {},
	"shared/control": {
		"shared/snapshot", "shared/policy", "shared/retention", "shared/compliance", "shared/schedule", "shared/statestore", "shared/repository", "events",
		"shared/approval", "shared/recovery",
	},
	// The agent.
	"hostagent":          {"shared", "events"},
	"hostagent/progress": {},
	"hostagent/durable":  {},
	"hostagent/state":    {"hostagent/durable", "shared/snapshot", "shared/compliance", "shared/retention", "shared/policy"},
	"hostagent/hook":     {"shared/policy"},
	"hostagent/pgbin":    {},
	"hostagent/scratch":  {},
	"hostagent/filetype": {"shared/snapshot"},
	"hostagent/pgserver": {"shared/postgres", "hostagent/pgbin", "hostagent/scratch"},
	"hostagent/source":   {"shared", "hostagent/filetype", "hostagent/scratch", "hostagent/pgbin"},
	"hostagent/restorer": {"shared", "hostagent/filetype", "hostagent/scratch", "hostagent/pgbin", "hostagent/pgserver"},
	"hostagent/proof":    {"shared", "hostagent/pgbin", "hostagent/pgserver"},
	"hostagent/cli":      {"shared", "events", "hostagent"},
	// What crosses between processes, and the cloud.
	"events":                {},
	"functions":             {"shared", "events"},
	"infra":                 {"shared/policy", "shared/objstore/address", "events", "functions/environment"},
	"functions/environment": {},
	// What only tests import.
	"functions/invoke/invoketest": {"shared", "test/program"},
	"test":                        {"shared", "events", "functions", "hostagent", "infra", "test"},
}

// deciding packages do no I/O and are told the time; see DESIGN.md, "Layers".
var deciding = []string{"shared/approval", "shared/snapshot", "shared/policy", "shared/retention", "shared/recovery", "shared/compliance", "shared/alert", "shared/sqlite", "shared/postgres"}

// effects are imports by which a package reaches outside itself.
var effects = []string{"os", "os/exec", "net", "net/http", "syscall", "log", "log/slog", "io/ioutil", "golang.org/x/sys/unix"}

// vague names say nothing about what a package is.
var vague = []string{"util", "utils", "common", "helper", "helpers", "model", "models", "types", "misc", "base"}

// file is one parsed .go file; dir is its directory below the module.
type file struct {
	dir, name string
	ast       *ast.File
	fset      *token.FileSet
}

func (f file) test() bool { return strings.HasSuffix(f.name, "_test.go") }

func (f file) imports() []string {
	var paths []string
	for _, spec := range f.ast.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err == nil {
			paths = append(paths, p)
		}
	}
	return paths
}

func parse(t *testing.T) []file {
	t.Helper()
	const root = "../.."
	var files []file
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel := filepath.ToSlash(strings.TrimPrefix(strings.TrimPrefix(p, root), string(filepath.Separator)))
		if d.IsDir() {
			if strings.HasPrefix(d.Name(), ".") && p != root || d.Name() == "testdata" || d.Name() == "bin" || rel == "test/tools" {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") || rel == "deps.go" {
			return nil
		}
		fset := token.NewFileSet()
		tree, err := parser.ParseFile(fset, p, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		files = append(files, file{dir: path.Dir(rel), name: path.Base(rel), ast: tree, fset: fset})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 5 {
		t.Fatalf("found %d Go files: wrong directory?", len(files))
	}
	return files
}

func within(dir, prefix string) bool { return dir == prefix || strings.HasPrefix(dir, prefix+"/") }

// layer returns the longest listed prefix of dir.
func layer(dir string) (string, bool) {
	for d := dir; d != "."; d = path.Dir(d) {
		if _, ok := layers[d]; ok {
			return d, true
		}
	}
	return "", false
}

func TestImportsPointDown(t *testing.T) {
	for _, f := range parse(t) {
		from, ok := layer(f.dir)
		if !ok {
			t.Errorf("%s: has no place among the layers; give it one in test/arch", f.dir)
			continue
		}
		for _, imp := range f.imports() {
			target, ours := strings.CutPrefix(imp, module)
			if !ours || f.test() || within(target, from) {
				continue
			}
			allowed := slices.ContainsFunc(layers[from], func(p string) bool { return within(target, p) })
			if !allowed {
				t.Errorf("%s/%s imports %s: %s may import %v only", f.dir, f.name, target, from, layers[from])
			}
		}
	}
}

func TestSourcesAreStrangers(t *testing.T) {
	const sources = "hostagent/source/"
	// What sources share is none itself.
	shared := []string{"paged", "inode", "stream", "workers"}
	for _, f := range parse(t) {
		rest, ok := strings.CutPrefix(f.dir, sources)
		if !ok {
			continue
		}
		own, _, _ := strings.Cut(rest, "/")
		for _, imp := range f.imports() {
			other, ok := strings.CutPrefix(imp, module+sources)
			if ok && !within(other, own) && !slices.ContainsFunc(shared, func(s string) bool { return within(other, s) }) {
				t.Errorf("%s/%s imports %s: sources never import each other", f.dir, f.name, imp)
			}
		}
	}
}

func TestDecidingPackagesDoNoIO(t *testing.T) {
	for _, f := range parse(t) {
		if f.test() || !slices.ContainsFunc(deciding, func(p string) bool { return within(f.dir, p) }) {
			continue
		}
		for _, imp := range f.imports() {
			if slices.Contains(effects, imp) {
				t.Errorf("%s/%s imports %s: packages that decide do no I/O", f.dir, f.name, imp)
			}
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			call, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			pkg, ok := call.X.(*ast.Ident)
			if ok && pkg.Name == "time" && slices.Contains([]string{"Now", "Since", "Until", "Sleep", "After", "Tick"}, call.Sel.Name) {
				t.Errorf("%s: time.%s: packages that decide are told the time", f.fset.Position(call.Pos()), call.Sel.Name)
			}
			return true
		})
	}
}

func TestNothingRegistersItself(t *testing.T) {
	for _, f := range parse(t) {
		for _, decl := range f.ast.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s: init(): mains build what they need", f.fset.Position(fn.Pos()))
			}
		}
	}
}

func TestPackagesAreNouns(t *testing.T) {
	documented := map[string]bool{}
	for _, f := range parse(t) {
		if slices.Contains(vague, path.Base(f.dir)) {
			t.Errorf("%s: say what the package is", f.dir)
		}
		if f.dir == "shared" {
			t.Errorf("shared/%s: shared holds packages only", f.name)
		}
		if !f.test() {
			documented[f.dir] = documented[f.dir] || f.ast.Doc != nil
		}
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("%s: the package has no doc comment", dir)
		}
	}
}
