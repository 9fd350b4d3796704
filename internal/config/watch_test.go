package config

import (
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// watched runs a watcher in the background; next waits for its next call.
func watched(t *testing.T, path string, poll time.Duration) (next func()) {
	t.Helper()
	return watchedWith(t, path, WatchOptions{Debounce: 5 * time.Millisecond, Poll: poll})
}

func watchedWith(t *testing.T, path string, o WatchOptions) (next func()) {
	t.Helper()
	w, err := Watch(path, o)
	if err != nil {
		t.Fatal(err)
	}
	calls, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		w.Run(t.Context(), func() {
			select {
			case calls <- struct{}{}:
			case <-t.Context().Done():
			}
		})
	}()
	t.Cleanup(func() { <-done })
	return func() {
		t.Helper()
		select {
		case <-calls:
		case <-time.After(10 * time.Second):
			t.Fatal("the change was not told")
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestWatchEditors(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "weir.yaml")
	write(t, path, "a: 1")
	next := watched(t, path, time.Hour)

	write(t, path, "a: 2") // in place
	next()
	write(t, path+"~", "a: 3") // written beside and renamed over
	must(t, os.Rename(path+"~", path))
	next()
	must(t, os.Remove(path))
	next()
	write(t, path, "a: 4")
	next()
	must(t, os.Chtimes(path, time.Now(), time.Now())) // no change: not told
	write(t, filepath.Join(dir, "other"), "x")
	write(t, path, "a: 5")
	next()
}

// What is in force in the place of the file may name other files than the file does.
func TestWatchWhatIsInForce(t *testing.T) {
	dir, secrets := t.TempDir(), t.TempDir()
	path, old := filepath.Join(dir, "weir.yaml"), filepath.Join(secrets, "old.pem")
	write(t, path, "pools: [{name: a, tls: {ca_file: new.pem}}]")
	write(t, filepath.Join(dir, "new.pem"), "1")
	write(t, old, "1")
	var instead atomic.Bool
	instead.Store(true)
	next := watchedWith(t, path, WatchOptions{Debounce: 5 * time.Millisecond, Poll: time.Hour, Instead: func() ([]byte, bool) {
		return []byte("pools: [{name: a, tls: {ca_file: " + old + "}}]"), instead.Load()
	}})
	write(t, old, "2")
	next()
	write(t, filepath.Join(dir, "new.pem"), "2") // of the file itself, which is to come back
	next()
	instead.Store(false)
	write(t, path, "pools: []")
	next()
	write(t, old, "3") // nobody names it any more
	write(t, path, "pools: [{name: b}]")
	next()
}

// Kubernetes mounts a ConfigMap as links: weir.yaml to ..data/weir.yaml, and
// ..data to a directory that is replaced as a whole.
func TestWatchConfigMap(t *testing.T) {
	dir := t.TempDir()
	swap := func(version, text string) {
		write(t, filepath.Join(dir, version, "weir.yaml"), text)
		must(t, os.Symlink(version, filepath.Join(dir, "..tmp")))
		must(t, os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data")))
	}
	swap("..v1", "a: 1")
	path := filepath.Join(dir, "weir.yaml")
	must(t, os.Symlink("..data/weir.yaml", path))
	next := watched(t, path, time.Hour)
	swap("..v2", "a: 2")
	next()
	must(t, os.RemoveAll(filepath.Join(dir, "..v1")))
	swap("..v3", "a: 3")
	next()
}

func TestWatchReferencedFiles(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	path := filepath.Join(dir, "weir.yaml")
	credential := filepath.Join(elsewhere, "later", "credential")
	write(t, path, "pools: [{credential: {secret: {file: "+credential+"}}}]")
	next := watched(t, path, 20*time.Millisecond) // its directory does not exist yet
	write(t, credential, "one")
	next()
	write(t, credential, "two")
	next()
	write(t, path, "pools: []")
	next()
}

func TestWatchLinkToElsewhere(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	path, target := filepath.Join(dir, "weir.yaml"), filepath.Join(elsewhere, "real.yaml")
	write(t, target, "a: 1")
	must(t, os.Symlink(target, path))
	next := watched(t, path, time.Hour)
	write(t, target, "a: 2")
	next()
}
