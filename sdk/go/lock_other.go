//go:build !unix

package hongyan

import "os"

// lockFile: here nothing keeps two processes apart.
func lockFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
}
