package cloud

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Deployed is a deployment into an emulator.
type Deployed struct {
	*Emulator
	Assembly string // directory of the templates as deployed
}

// Functions builds the functions' binaries for this machine into a directory, all at once.
func Functions(t testing.TB, programs ...string) string {
	t.Helper()
	built, dir := t.TempDir(), t.TempDir()
	args := []string{"build", "-buildvcs=false", "-tags", "lambda.norpc", "-trimpath", "-ldflags", "-s -w", "-o", built + "/"}
	for _, p := range programs {
		args = append(args, "./functions/"+p)
	}
	Run(t, Root(t), append(os.Environ(), "CGO_ENABLED=0"), "go", args...)
	for _, p := range programs {
		if err := os.Mkdir(filepath.Join(dir, p), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(built, p), filepath.Join(dir, p, "bootstrap")); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Deploy synthesizes, bootstraps and deploys with the CDK's command line, as `make deploy` does. Resources of a kind that
// the emulator does not know are left out of the templates before; variables are added to functions, by name.
func (e *Emulator) Deploy(t testing.TB, policyFile, functions string, regions []string, variables map[string]map[string]string, context ...string) *Deployed {
	t.Helper()
	d := &Deployed{Emulator: e, Assembly: filepath.Join(t.TempDir(), "cdk.out")}
	infra := filepath.Join(t.TempDir(), "infra")
	Run(t, Root(t), os.Environ(), "go", "build", "-buildvcs=false", "-o", infra, "./infra")
	env := append(e.Env(regions[0]), "PATH="+Node(t)+string(filepath.ListSeparator)+os.Getenv("PATH"))
	args := []string{
		"synth", "--quiet", "--app", infra, "--output", d.Assembly, "-c", "policy=" + policyFile, "-c", "account=" + Account,
		"-c", "assets=" + functions, "-c", "architecture=" + Architecture(),
	}
	for _, c := range context {
		args = append(args, "-c", c)
	}
	cdk := filepath.Join(Node(t), "cdk")
	Run(t, Root(t), env, cdk, args...)
	leaveOut(t, d.Assembly, "AWS::CloudWatch::CompositeAlarm", "AWS::RolesAnywhere::Profile")
	setVariables(t, d.Assembly, variables)
	// The emulator's scheduler does not fill in the time of the beat. Functions take their own clock then.
	replace(t, d.Assembly, `,\"time\":\"<aws.scheduler.scheduled-time>\"`, "")
	bootstrap := []string{"bootstrap", "--app", d.Assembly}
	for _, r := range regions {
		bootstrap = append(bootstrap, "aws://"+Account+"/"+r)
	}
	Run(t, t.TempDir(), env, cdk, bootstrap...)
	d.Again(t, regions[0])
	return d
}

// Again deploys the same templates once more.
func (d *Deployed) Again(t testing.TB, region string) {
	t.Helper()
	env := append(d.Env(region), "PATH="+Node(t)+string(filepath.ListSeparator)+os.Getenv("PATH"))
	Run(t, t.TempDir(), env, filepath.Join(Node(t), "cdk"), "deploy", "--app", d.Assembly, "--all", "--require-approval", "never",
		"--import-existing-resources", "--concurrency", "2", "--progress", "events")
}

// Destroy removes stacks, as `make destroy` does.
func (d *Deployed) Destroy(t testing.TB, region string, stacks ...string) {
	t.Helper()
	env := append(d.Env(region), "PATH="+Node(t)+string(filepath.ListSeparator)+os.Getenv("PATH"))
	Run(t, t.TempDir(), env, filepath.Join(Node(t), "cdk"), append([]string{"destroy", "--app", d.Assembly, "--force", "--exclusively"}, stacks...)...)
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
