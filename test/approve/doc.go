// Package approve tests that restores are approved with keys in AWS KMS: the real binary signs with the KMS of an emulator.
package approve
