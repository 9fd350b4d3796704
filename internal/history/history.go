// Package history keeps the configurations that were in force, as they were written,
// in a folder of the data directory, and which of them is pinned. It neither reads nor
// judges a configuration.
package history

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// keep is how many versions are kept.
const keep = 100

// Entry is one time that a configuration came into force.
type Entry struct {
	Number  int       `json:"number"`  // from 1, rising
	Version string    `json:"version"` // the plan's: equal configurations have equal versions
	Time    time.Time `json:"time"`
	// By says how it came: start, file, or rollback to 7.
	By string `json:"by"`
	// Refused is why an Envoy refused it; "" when it came into force.
	Refused string `json:"refused,omitempty"`
}

// Pin says that a version stays in force until the file changes.
type Pin struct {
	Number int       `json:"number"`
	Time   time.Time `json:"time"`
	// File is the hash of the configuration file when the pin was set.
	File string `json:"file"`
}

// Store is the folder. It is safe for concurrent use by one process.
type Store struct {
	dir string
	mu  sync.Mutex
}

// Open opens the folder, which need not be there yet.
func Open(dir string) *Store { return &Store{dir: dir} }

// Hash is that of a file's text.
func Hash(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

const (
	entrySuffix = ".json"
	textSuffix  = ".yaml"
	pinFile     = "pin.json"
)

func (s *Store) file(number int, suffix string) string {
	return filepath.Join(s.dir, fmt.Sprintf("%08d", number)+suffix)
}

// Add keeps a configuration and returns its entry, numbered. The oldest ones go.
func (s *Store) Add(e Entry, text []byte) (Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	numbers, err := s.numbers()
	if err == nil {
		err = os.MkdirAll(s.dir, 0o700)
	}
	if err != nil {
		return e, fmt.Errorf("history: %w", err)
	}
	e.Number = 1
	if n := len(numbers); n > 0 {
		e.Number = numbers[n-1] + 1
	}
	meta, err := json.Marshal(e)
	if err != nil {
		return e, err
	}
	// The text first: an entry without its text could not be gone back to.
	if err := errors.Join(write(s.file(e.Number, textSuffix), text), write(s.file(e.Number, entrySuffix), meta)); err != nil {
		return e, fmt.Errorf("history: %w", err)
	}
	pin, _ := s.pin()
	for _, old := range numbers[:max(0, len(numbers)+1-keep)] {
		if pin != nil && pin.Number == old {
			continue
		}
		_ = os.Remove(s.file(old, entrySuffix))
		_ = os.Remove(s.file(old, textSuffix))
	}
	return e, nil
}

// write replaces a file whole.
func write(name string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

func (s *Store) numbers() (list []int, err error) {
	files, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, f := range files {
		if text, ok := strings.CutSuffix(f.Name(), entrySuffix); ok {
			if n, err := strconv.Atoi(text); err == nil && n > 0 {
				list = append(list, n)
			}
		}
	}
	slices.Sort(list)
	return list, err
}

// Entries lists what is kept, the oldest first. What cannot be read is left out.
func (s *Store) Entries() ([]Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	numbers, err := s.numbers()
	if err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	var list []Entry
	for _, n := range numbers {
		var e Entry
		if b, err := os.ReadFile(s.file(n, entrySuffix)); err == nil && json.Unmarshal(b, &e) == nil && e.Number == n {
			list = append(list, e)
		}
	}
	return list, nil
}

// Text is a configuration as it was written.
func (s *Store) Text(number int) ([]byte, error) {
	text, err := os.ReadFile(s.file(number, textSuffix))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("history: there is no version %d", number)
	}
	return text, err
}

// Pinned is the pin; nil when there is none.
func (s *Store) Pinned() (*Pin, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pin()
}

func (s *Store) pin() (*Pin, error) {
	b, err := os.ReadFile(filepath.Join(s.dir, pinFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var p Pin
	if err == nil {
		err = json.Unmarshal(b, &p)
	}
	if err != nil {
		return nil, fmt.Errorf("history: %s: %w", filepath.Join(s.dir, pinFile), err)
	}
	return &p, nil
}

// Pin sets the pin; nil takes it away.
func (s *Store) Pin(p *Pin) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := filepath.Join(s.dir, pinFile)
	if p == nil {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("history: %w", err)
		}
		return nil
	}
	b, err := json.Marshal(p)
	if err == nil {
		err = write(name, b)
	}
	if err != nil {
		return fmt.Errorf("history: %w", err)
	}
	return nil
}

// Others are the entries whose text is not that of an entry, by its number.
func (s *Store) Others(list []Entry, number int) []Entry {
	same, err := s.Text(number)
	if err != nil {
		return list // it is not kept any more, and so nothing is known to be equal
	}
	var others []Entry
	for _, e := range list {
		if text, err := s.Text(e.Number); err != nil || !bytes.Equal(text, same) {
			others = append(others, e)
		}
	}
	return others
}

// Find is the entry that is meant by a number or by the beginning of a version; by
// nothing, the last one that was in force before the one given.
func Find(list []Entry, what, current string) (Entry, error) {
	for _, e := range slices.Backward(list) {
		switch {
		case what == "" && (e.Refused != "" || e.Version == current):
			continue
		case what == "", strconv.Itoa(e.Number) == what, len(what) >= 6 && strings.HasPrefix(e.Version, what):
			if e.Refused != "" {
				return e, fmt.Errorf("version %d was refused by an Envoy: %s", e.Number, e.Refused)
			}
			return e, nil
		}
	}
	if what == "" {
		return Entry{}, errors.New("no other version was in force before")
	}
	return Entry{}, fmt.Errorf("no version %q is kept: weir history lists them", what)
}
