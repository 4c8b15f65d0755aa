package cloud

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/jsii-runtime-go"

	"github.com/btcdecoded/holdfast/infra/settings"
	"github.com/btcdecoded/holdfast/infra/stack"
	"github.com/btcdecoded/holdfast/shared/policy"
)

// Programs lists the binaries that the deployment wants.
func Programs() []string {
	var out []string
	for _, f := range append(settings.Functions(false), settings.Functions(true)...) {
		if !slices.Contains(out, f.Program) {
			out = append(out, f.Program)
		}
	}
	return out
}

// Settings makes settings of a policy and a context.
func Settings(t testing.TB, text string, context map[string]string) *settings.Settings {
	t.Helper()
	p, err := policy.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	s, err := settings.Load(p, func(key string) string { return context[key] })
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Synth synthesizes the templates in this process and returns their directory. The caller's TestMain calls jsii.Close.
func Synth(t testing.TB, s *settings.Settings) string {
	t.Helper()
	// The CDK's kernel is a node program, looked for on the path.
	if err := os.Setenv("PATH", Node(t)+string(filepath.ListSeparator)+os.Getenv("PATH")); err != nil {
		t.Fatal(err)
	}
	s.Assets = Stubs(t, Programs()...)
	dir := t.TempDir()
	app := awscdk.NewApp(&awscdk.AppProps{
		Outdir: jsii.String(dir), AnalyticsReporting: jsii.Bool(false),
		Context: &map[string]any{"@aws-cdk/core:validateAgainstDefaultRules": true},
	})
	if err := stack.Deployment(app, s); err != nil {
		t.Fatal(err)
	}
	if err := synth(app); err != nil {
		t.Fatal(err)
	}
	return dir
}

// synth turns the panics by which jsii reports errors into errors.
func synth(app awscdk.App) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("synthesize: %v", p)
		}
	}()
	app.Synth(nil)
	return nil
}
