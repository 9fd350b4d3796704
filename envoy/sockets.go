package envoy

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// maxSocketPath is what fits into sockaddr_un on Linux, the final zero left out.
const maxSocketPath = 107

// longestSocketName is room for the sockets' own names in a runtime directory.
const longestSocketName = 32

func checkSocketPath(path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("socket %q: not absolute", path)
	}
	if len(path) > maxSocketPath {
		return fmt.Errorf("socket %q: longer than %d bytes", path, maxSocketPath)
	}
	return nil
}

// RuntimeDir is the directory for the sockets of one data directory, made with
// mode 0700: <data>/run, or, where sockets in it would have names that are too
// long for the kernel, a directory under the temporary directory whose name
// depends on the user and the data directory alone, so that a later weir finds
// the same sockets.
func RuntimeDir(data string) (string, error) {
	abs, err := filepath.Abs(data)
	if err != nil {
		return "", fmt.Errorf("runtime directory: %w", err)
	}
	dir := filepath.Join(abs, "run")
	if len(dir)+1+longestSocketName > maxSocketPath {
		sum := sha256.Sum256([]byte(abs))
		dir = filepath.Join(os.TempDir(), "weir-"+strconv.Itoa(os.Getuid())+"-"+hex.EncodeToString(sum[:6]))
	}
	if len(dir)+1+longestSocketName > maxSocketPath {
		return "", fmt.Errorf("runtime directory %q: too long for sockets", dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("runtime directory: %w", err)
	}
	return dir, ownAndPrivate(dir)
}

// ownAndPrivate refuses a directory that somebody else could have prepared.
func ownAndPrivate(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("runtime directory: %w", err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() {
		return fmt.Errorf("runtime directory %q: %w", dir, errors.New("not a directory"))
	}
	if int(stat.Uid) != os.Getuid() {
		return fmt.Errorf("runtime directory %q: belongs to another user", dir)
	}
	if info.Mode().Perm()&0o077 != 0 {
		if err := os.Chmod(dir, 0o700); err != nil {
			return fmt.Errorf("runtime directory: %w", err)
		}
	}
	return nil
}
