package config

import (
	"context"
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// WatchOptions tune a watcher. The zero value is that of a running weir.
type WatchOptions struct {
	// Debounce is how long the files must be quiet before a change is told, so
	// that an editor's several steps are one. Default: 200ms
	Debounce time.Duration
	// Poll is how often the files are looked at without any notice of a change:
	// network file systems give none. Default: 10s
	Poll time.Duration
	// Instead is a text that is in force in the place of the file's, if one is; nil: none
	// ever is. The files that it refers to are watched as well.
	Instead func() (text []byte, ok bool)
}

// Watcher tells when the content of a configuration file, or of a file that it
// refers to, has changed. It watches directories, not files: editors and
// Kubernetes replace files by renaming, and a watch on a file would end there.
// What a change means is the caller's matter.
type Watcher struct {
	path   string
	opts   WatchOptions
	notify *fsnotify.Watcher
	dirs   map[string]bool
	last   [sha256.Size]byte
}

// Watch begins to watch the file at path. Changes count from here on, so watch
// first and load then.
func Watch(path string, o WatchOptions) (*Watcher, error) {
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", path, err)
	}
	if o.Debounce <= 0 {
		o.Debounce = 200 * time.Millisecond
	}
	if o.Poll <= 0 {
		o.Poll = 10 * time.Second
	}
	w := &Watcher{path: path, opts: o, notify: notify, dirs: map[string]bool{}}
	w.changed()
	return w, nil
}

// Run calls changed after each change, one call at a time, until the context
// ends. It is called once.
func (w *Watcher) Run(ctx context.Context, changed func()) {
	defer func() { _ = w.notify.Close() }()
	poll := time.NewTicker(w.opts.Poll)
	defer poll.Stop()
	quiet := time.NewTimer(0)
	defer quiet.Stop()
	var latest time.Time // when a change is told at the latest; zero: none is due
	stir := func() {
		now := time.Now()
		if latest.IsZero() {
			latest = now.Add(10 * w.opts.Debounce)
		}
		quiet.Reset(min(w.opts.Debounce, latest.Sub(now)))
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.notify.Events:
			stir()
			continue
		case err := <-w.notify.Errors:
			if err != nil { // too many events at once, say: something has changed
				stir()
			}
			continue
		case <-quiet.C:
		case <-poll.C:
		}
		latest = time.Time{}
		if w.changed() {
			changed()
		}
	}
}

// changed looks at the files anew, and watches the directories where they are now.
func (w *Watcher) changed() bool {
	sum := sha256.New()
	dirs := map[string]bool{}
	for _, file := range w.files() {
		dirs[filepath.Dir(file)] = true
		if target, err := filepath.EvalSymlinks(file); err == nil {
			dirs[filepath.Dir(target)] = true
		}
		content, err := readFile(file, maxFileBytes+1)
		sum.Write(fmt.Appendf(nil, "%q %x %t\n", file, sha256.Sum256(content), err == nil))
	}
	w.follow(dirs)
	now := [sha256.Size]byte(sum.Sum(nil))
	defer func() { w.last = now }()
	return now != w.last
}

// files are those whose content matters now.
func (w *Watcher) files() []string {
	files := Files(w.path)
	if w.opts.Instead != nil {
		if text, ok := w.opts.Instead(); ok {
			files = append(files, NamedFiles(w.path, text)...)
		}
	}
	return files
}

// follow watches these directories and no others. One that cannot be watched
// (it does not exist yet, say) is tried again at the next look; until then
// polling sees its changes.
func (w *Watcher) follow(dirs map[string]bool) {
	for dir := range w.dirs {
		if !dirs[dir] {
			_ = w.notify.Remove(dir) // it may be gone already
			delete(w.dirs, dir)
		}
	}
	for dir := range dirs {
		// Adding again is free, and needed where a directory was replaced.
		if w.notify.Add(dir) == nil {
			w.dirs[dir] = true
		}
	}
}
