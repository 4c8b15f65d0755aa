// Package demo runs the demonstration that `make demo` shows. It has no code of its own.
package demo
