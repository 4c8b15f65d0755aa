// Package guide runs the commands of docs/guide.md. It has no code of its own.
package guide
