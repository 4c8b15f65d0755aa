// Package e2e deploys the control plane into an emulator of AWS with the CDK's command line, runs an agent on real files
// and follows what happens. Everything is real but AWS itself: the templates, the functions' binaries, the agent. What
// the emulator does not enforce (IAM, Object Lock, checksums) is tested elsewhere: test/iam, test/integration,
// functions/*.
package e2e
