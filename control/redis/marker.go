package redis

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/weirproxy/weir/control"
)

// markerFile, in the data directory, says how far the store was. There is none while
// it was never changed: then nothing can be lost.
const markerFile = "control-redis.id"

// Marker is where a data directory keeps how far its store was.
func Marker(dir string) string { return filepath.Join(dir, markerFile) }

// tokenSize is the length of a change's token, in bytes.
const tokenSize = 8

// valid tells whether the place can be one of a history.
func (p place) valid() bool {
	if p.revision == 0 {
		return p.token == ""
	}
	b, err := hex.DecodeString(p.token)
	return p.revision > 0 && err == nil && len(b) == tokenSize
}

func (p place) String() string { return decimal(p.revision) + " " + p.token }

// parsePlace reads what String writes, and nothing else.
func parsePlace(text string) (place, bool) {
	number, token, _ := strings.Cut(text, " ")
	n, err := strconv.ParseInt(number, 10, 64)
	p := place{control.Revision(n), token}
	return p, err == nil && n > 0 && p.valid() && p.String() == text
}

// readMarker is how far the store was that the directory has seen.
func readMarker(path string) (place, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return place{}, nil
	}
	if err != nil {
		return place{}, err
	}
	p, ok := parsePlace(strings.TrimSuffix(string(b), "\n"))
	if !ok {
		return place{}, fmt.Errorf("%s is damaged: nobody can tell whether the store is the one that was. If it is, delete the file", path)
	}
	return p, nil
}

// writeMarker replaces the marker in one step, and for good.
func writeMarker(path string, p place) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(p.String() + "\n")
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
