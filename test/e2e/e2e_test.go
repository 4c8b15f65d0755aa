package e2e_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/test/cluster"
)

// The policy: its RPO is short, since monitor looks at a source in a third of it. One source
// that is backed up each minute and is larger than it may be, those that are when a job comes, and one that never is.
const policyText = `version: 1
repository:
  primary: s3://holdfast-e2e?region=eu-central-1&path_style=true
  copies: ["s3://holdfast-e2e-replica?region=eu-west-1&path_style=true"]
approvers:
  - {name: operator, key: OPERATOR}
  - {name: security, key: SECURITY}
hosts:
  web-1:
    restore: {targets: [ROOT/restored, CLUSTERS]}
    sources:
      app:
        files: {roots: [ROOT/app]}
        schedule: {full: "0 3 1 1 *", incremental: "* * * * *"}
        objectives: {tier: critical, rpo: 1m, max_size: 1KiB, copies: 1}
        metrics: true
      old:
        files: {roots: [ROOT/old]}
        retention: {keep_last: 1}
        objectives: {tier: standard, rpo: 1h, copies: 1}
      database:
        sqlite: {path: ROOT/app.db}
        objectives: {tier: standard, rpo: 1h, copies: 1}
      cluster:
        postgres: {service: e2e, mode: physical, bin: PROGRAMS}
        objectives: {tier: standard, rpo: 1h, copies: 1}
      idle:
        files: {roots: [ROOT/app]}
        objectives: {tier: low, rpo: 1h, copies: 1}
`

// TestControlPlane is one story: its parts need each other, and a deployment takes a while. Each step is bounded, and no
// step waits for a time, only for what must come.
func TestControlPlane(t *testing.T) {
	started := time.Now()
	root := t.TempDir()
	people := map[string]*approver{"operator": newApprover(t), "security": newApprover(t)}
	server := cluster.Start(t, cluster.Options{})
	clusters := server.Owner.Dir(t)
	w := newWorld(t, strings.NewReplacer(
		"ROOT", root, "OPERATOR", people["operator"].public, "SECURITY", people["security"].public, "CLUSTERS", clusters, "PROGRAMS", server.BinDir,
	).Replace(policyText))
	w.root, w.people, w.server, w.clusters = root, people, server, clusters
	w.write("pg_service.conf", fmt.Sprintf("[e2e]\nhost=127.0.0.1\nport=%d\nuser=%s\ndbname=postgres\nsslmode=disable\n", server.Port, server.Superuser))
	w.files(root+"/app", 20)
	t.Logf("deployed in %v", time.Since(started).Round(time.Second))
	w.start()
	for _, step := range []struct {
		name string
		run  func(w *world)
	}{
		{"what is deployed is what a deployment would deploy", unchanged},
		{"a test of the alarms arrives", alarmTest},
		{"orders that are none are refused, once each", refused},
		{"a source that was never backed up is told", never},
		{"poison goes to the dead letters", poison},
		{"a job that is delivered again runs once", duplicate},
		{"a schedule makes a checked snapshot", scheduled},
		{"a schedule that beats more than once asks for one backup", replayed},
		{"an oversized source is told", oversized},
		{"a damaged object is found and told", damaged},
		{"the metrics raise the alarms that they should", judged},
		{"what retention ends goes, what is pinned stays", expired},
		{"a restore that two people signed brings the files back", restored},
		{"databases come back in the same way", databases},
		{"a stopped agent is told, and its end", silent},
		{"each run was done once", once},
		{"what is destroyed and deployed again finds its backups", again},
	} {
		begun := time.Now()
		if !t.Run(step.name, func(t *testing.T) {
			outer := w.t
			w.t = t
			defer func() { w.t = outer }()
			step.run(w)
		}) {
			break
		}
		t.Logf("%s: %v", step.name, time.Since(begun).Round(100*time.Millisecond))
	}
}
