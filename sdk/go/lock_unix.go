//go:build unix

package hongyan

import (
	"errors"
	"os"
	"syscall"
)

// lockFile takes the lock that a process holds until it ends.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, errors.New("another process uses this device's store")
	}
	return f, nil
}
