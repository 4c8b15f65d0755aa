package cli

import "testing"

// TestMayJump: whose clock waits are counted by.
func TestMayJump(t *testing.T) {
	for _, name := range []string{"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "STORAGE_EMULATOR_HOST"} {
		t.Setenv(name, "")
	}
	for address, want := range map[string]bool{
		"/mnt/backup":                  true,
		"file:///mnt/backup":           true,
		"s3://bucket?region=eu-west-1": false,
		"s3://bucket/at?region=x&endpoint=http://nas:9000": true,
		"gs://bucket":                          false,
		"gs://bucket?endpoint=http://nas:9000": true,
	} {
		if got := mayJump(address); got != want {
			t.Errorf("%s: %v", address, got)
		}
	}
	t.Setenv("AWS_ENDPOINT_URL", "http://nas:9000")
	if !mayJump("s3://bucket?region=eu-west-1") {
		t.Error("a server of one's own")
	}
}
