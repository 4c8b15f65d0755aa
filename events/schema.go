package events

import (
	"embed"
	"io/fs"
)

//go:embed schemas/*.json examples/*.json
var published embed.FS

// Schemas returns the JSON Schemas (draft 2020-12) of jobs and events: job.json, job-finished.json, …
func Schemas() fs.FS { return below("schemas") }

// Examples returns an example of each: job-backup.json, heartbeat.json, …
func Examples() fs.FS { return below("examples") }

func below(dir string) fs.FS {
	sub, err := fs.Sub(published, dir)
	if err != nil {
		panic(err) // the name is valid: it stands above
	}
	return sub
}
