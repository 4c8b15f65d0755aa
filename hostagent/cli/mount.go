package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/btcdecoded/holdfast/hostagent/mount"
)

func (a *app) mountCommand() *cobra.Command {
	var o mount.Options
	cmd := &cobra.Command{
		Use:   "mount DIRECTORY",
		Short: "Show all snapshots as a read-only file system",
		Long: `Show the repository as a file system in an empty directory, until the command is interrupted or the directory is
unmounted: DIRECTORY/HOST/SOURCE/NUMBER-TIME/… with every file under its own path, and the link "latest" to the newest
snapshot of each source. Nothing can be written. It needs FUSE (/dev/fuse), and who is not root needs fusermount3.`,
		Example: `  mkdir /tmp/snapshots
  holdfast mount /tmp/snapshots
  ls /tmp/snapshots/web-1/etc/latest/etc/ssh`,
		GroupID: groupUse,
		Args:    arguments(1, 1, "one DIRECTORY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			repo, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			if err := a.alsoRead(repo); err != nil {
				return err
			}
			return mount.Mount(cmd.Context(), repo, args[0], o, func() {
				_, _ = fmt.Fprintf(a.stdio.Err, "mounted on %s; interrupt to unmount\n", args[0])
			})
		},
	}
	a.alsoFlag(cmd)
	cmd.Flags().BoolVar(&o.AllowOther, "allow-other", false, "let other users look, with the rights that the modes give them")
	return cmd
}
