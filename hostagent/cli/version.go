package cli

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Long:    "Print the version of Holdfast, of Go, and the repository format that it reads and writes.",
		Example: "  holdfast version\n  holdfast version --json",
		GroupID: groupConfig,
		Args:    arguments(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			v := struct {
				Version  string `json:"version"`
				Go       string `json:"go"`
				Platform string `json:"platform"`
				Format   int    `json:"format"`
			}{a.version, runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH, 1}
			return a.print(v, func(w io.Writer) {
				fmt.Fprintf(w, "holdfast %s (%s, %s), repository format %d\n", v.Version, v.Go, v.Platform, v.Format)
			})
		},
	}
}

func (a *app) manCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:     "man --dir DIR",
		Short:   "Write the man pages",
		Long:    "Write one man page for each command into a directory, which is made if it is not there.",
		Example: "  holdfast man --dir /usr/local/share/man/man1",
		GroupID: groupConfig,
		Args:    arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dir == "" {
				return usagef("man: --dir says where the pages go")
			}
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return fmt.Errorf("write man pages: %w", err)
			}
			root := cmd.Root()
			root.DisableAutoGenTag = true
			header := &doc.GenManHeader{Section: "1", Source: "Holdfast " + a.version, Manual: "Holdfast"}
			if err := doc.GenManTree(root, header, dir); err != nil {
				return fmt.Errorf("write man pages: %w", err)
			}
			pages, err := filepath.Glob(filepath.Join(dir, "holdfast*.1"))
			if err != nil {
				return fmt.Errorf("write man pages: %w", err)
			}
			return a.print(map[string]any{"directory": dir, "pages": len(pages)}, func(w io.Writer) {
				fmt.Fprintf(w, "%d pages in %s\n", len(pages), dir)
			})
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "`DIR` for the pages")
	return cmd
}
