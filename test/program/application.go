package program

import "path/filepath"

// Application puts the binary of the application of package test/writer into the directory and returns its path.
func Application(dir string) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	return place(root, filepath.Join(root, "test", "writer", "app"), filepath.Join(dir, "app"))
}
