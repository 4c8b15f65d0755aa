package control_test

import (
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/shared/control"
)

// TestHeartbeatOfARestore: what an agent restores and how much room it has is noted, and not with each heartbeat.
func TestHeartbeatOfARestore(t *testing.T) {
	now := time.Date(2026, 3, 6, 12, 0, 0, 0, time.UTC)
	h := &control.HostJobs{Version: 1, Host: "web-1"}
	beat := func(kind events.JobKind, job string, free uint64) bool {
		e := &events.Heartbeat{Version: 1, Host: "web-1", Agent: "v1", Time: now, Free: map[string]uint64{"/srv/restore": free}}
		if job != "" {
			e.Running = &events.RunningJob{Job: job, Kind: kind, Started: now, Bytes: 7}
		}
		changed, _ := h.TakeHeartbeat(e, control.Limits{}, now)
		return changed
	}
	const job, other = "00112233445566778899aabbccddeeff", "ffeeddccbbaa99887766554433221100"
	if !beat("", "", 100) || h.Free["/srv/restore"] != 100 || h.Restoring != nil {
		t.Errorf("%+v", h)
	}
	now = now.Add(5 * time.Minute)
	if beat("", "", 50) || h.Free["/srv/restore"] != 100 {
		t.Errorf("written for its room alone: %+v", h)
	}
	if !beat(events.Restore, job, 40) || h.Restoring == nil || h.Restoring.Job != job || h.Restoring.Bytes != 7 || h.Free["/srv/restore"] != 40 {
		t.Errorf("%+v", h.Restoring)
	}
	now = now.Add(5 * time.Minute)
	if beat(events.Restore, job, 40) {
		t.Error("written with each heartbeat")
	}
	now = now.Add(15 * time.Minute)
	if !beat(events.Restore, job, 30) || !h.Restoring.Seen.Equal(now) || h.Free["/srv/restore"] != 30 {
		t.Errorf("%+v", h.Restoring)
	}
	// A backup is no restore, and nonsense none either; another restore is at once.
	now = now.Add(time.Minute)
	beat(events.Backup, other, 30)
	beat(events.Restore, "../x", 30)
	if h.Restoring.Job != job {
		t.Errorf("%+v", h.Restoring)
	}
	if !beat(events.Restore, other, 30) || h.Restoring.Job != other {
		t.Errorf("%+v", h.Restoring)
	}
}
