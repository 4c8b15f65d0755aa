package cloud

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// Deployed is a deployment into an emulator, made with the targets of the Makefile.
type Deployed struct {
	*Emulator
	Assembly  string // directory of the templates as deployed
	Functions string // directory with a subdirectory for each function's binary
	Said      string // what the last deployment printed

	region    string
	args      []string // of make
	variables map[string]map[string]string
}

// Deploy runs `make synth`, `make bootstrap` and `make deploy` for a policy file, with more of make's variables, such as
// email=…. What is synthesized is changed on the way: resources of a kind that the emulator does not know are left out,
// and variables are added to functions, by name.
func (e *Emulator) Deploy(t testing.TB, policyFile, region string, variables map[string]map[string]string, args ...string) *Deployed {
	t.Helper()
	d := &Deployed{Emulator: e, Functions: filepath.Join(t.TempDir(), "functions"), region: region, variables: variables}
	d.args = append([]string{"policy=" + policyFile, "architecture=" + Architecture(), "assets=" + d.Functions}, args...)
	d.Synthesize(t, "")
	d.Make(t, "bootstrap", "CDK=--app "+d.Assembly)
	d.Again(t)
	return d
}

// Synthesize makes the templates, with more of the context: "-c name=value".
func (d *Deployed) Synthesize(t testing.TB, context string) {
	t.Helper()
	d.Assembly = filepath.Join(t.TempDir(), "cdk.out")
	d.Make(t, "synth", "CDK=--output "+d.Assembly+" "+context)
	leaveOut(t, d.Assembly, "AWS::CloudWatch::CompositeAlarm", "AWS::RolesAnywhere::Profile")
	setVariables(t, d.Assembly, d.variables)
	// The emulator's scheduler does not fill in the time of the beat. Functions take their own clock then.
	replace(t, d.Assembly, `,\"time\":\"<aws.scheduler.scheduled-time>\"`, "")
}

// Make runs a target of the Makefile against the emulator, as a person does on a terminal: but nobody is there to be
// asked. It returns what it printed; a failure ends the test.
func (d *Deployed) Make(t testing.TB, target string, args ...string) string {
	t.Helper()
	args = slices.Concat([]string{"--no-print-directory", target}, d.args, args)
	return Run(t, Root(t), ownMake(d.Env(d.region)), "make", args...)
}

// ownMake takes out of an environment what a make that started the tests has put there for its own sub-makes.
func ownMake(env []string) []string {
	return slices.DeleteFunc(env, func(s string) bool {
		name, _, _ := strings.Cut(s, "=")
		return slices.Contains([]string{"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEFILES", "MAKEOVERRIDES"}, name)
	})
}

// Again deploys the same templates, for the first time or once more.
func (d *Deployed) Again(t testing.TB) {
	t.Helper()
	d.Said = d.Make(t, "deploy", "approval=never", "CDK=--app "+d.Assembly+" --concurrency 2 --progress events")
}

// Diff returns what `make diff` says.
func (d *Deployed) Diff(t testing.TB) string {
	t.Helper()
	return d.Make(t, "diff", "CDK=--app "+d.Assembly)
}

// Destroy removes what `make destroy` removes.
func (d *Deployed) Destroy(t testing.TB) {
	t.Helper()
	d.Make(t, "destroy", "CDK=--app "+d.Assembly+" --force")
}

// DestroyAll removes the stacks of storage too, as docs/deploy.md describes it. protected names these stacks with their
// regions.
func (d *Deployed) DestroyAll(t testing.TB, protected map[string]string) {
	t.Helper()
	for stack, region := range protected {
		d.query(t, region, "cloudformation", url.Values{
			"Action": {"UpdateTerminationProtection"}, "Version": {"2010-05-15"}, "StackName": {stack}, "EnableTerminationProtection": {"false"},
		})
	}
	d.Make(t, "destroy", "stacks=--all", "CDK=--app "+d.Assembly+" --force")
}

// query makes one request to a service that the module has no client of, and returns the answer.
func (e *Emulator) query(t testing.TB, region, service string, form url.Values) string {
	t.Helper()
	body := form.Encode()
	q, err := http.NewRequestWithContext(t.Context(), http.MethodPost, e.Endpoint+"/", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	sum := sha256.Sum256([]byte(body))
	key := aws.Credentials{AccessKeyID: Account, SecretAccessKey: "test"}
	if err := v4.NewSigner().SignHTTP(t.Context(), key, q, hex.EncodeToString(sum[:]), service, region, time.Now()); err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	said, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %s, %v: %s", service, form.Get("Action"), answer.Status, err, said)
	}
	return string(said)
}

// leaveOut removes resources of some types from all templates.
func leaveOut(t testing.TB, dir string, types ...string) {
	t.Helper()
	edit(t, dir, func(resources map[string]any) {
		for id, r := range resources {
			if m, _ := r.(map[string]any); slices.Contains(types, fmt.Sprint(m["Type"])) {
				delete(resources, id)
			}
		}
	})
}

// setVariables adds variables to the environment of functions: times that a test can't wait for.
func setVariables(t testing.TB, dir string, variables map[string]map[string]string) {
	t.Helper()
	edit(t, dir, func(resources map[string]any) {
		for _, r := range resources {
			m, _ := r.(map[string]any)
			p, _ := m["Properties"].(map[string]any)
			more := variables[fmt.Sprint(p["FunctionName"])]
			if m["Type"] != "AWS::Lambda::Function" || more == nil {
				continue
			}
			all, _ := p["Environment"].(map[string]any)["Variables"].(map[string]any)
			for name, value := range more {
				all[name] = value
			}
		}
	})
}

// edit changes the resources of all templates.
func edit(t testing.TB, dir string, change func(resources map[string]any)) {
	t.Helper()
	templates, err := filepath.Glob(filepath.Join(dir, "*.template.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range templates {
		text, err := os.ReadFile(name) //nolint:gosec // a test's own
		if err != nil {
			t.Fatal(err)
		}
		var template map[string]any
		if err := json.Unmarshal(text, &template); err != nil {
			t.Fatal(err)
		}
		resources, _ := template["Resources"].(map[string]any)
		change(resources)
		var out bytes.Buffer
		encoder := json.NewEncoder(&out)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(template); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, out.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// replace changes the text of all templates, which must have it.
func replace(t testing.TB, dir, from, to string) {
	t.Helper()
	templates, err := filepath.Glob(filepath.Join(dir, "*.template.json"))
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, name := range templates {
		found += replaceIn(t, name, from, to)
	}
	if found == 0 {
		t.Fatalf("no template has %s", from)
	}
}

func replaceIn(t testing.TB, name, from, to string) int {
	t.Helper()
	text, err := os.ReadFile(name) //nolint:gosec // a test's own
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(strings.ReplaceAll(string(text), from, to)), 0o600); err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(text), from)
}
