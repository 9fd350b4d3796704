package usage

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/weirproxy/weir/usage/spool"
)

// position is how far a log file was read: the file by its inode and its
// beginning, since an inode may be used again for another file.
type position struct {
	Path   string `json:"path"`
	Device uint64 `json:"dev"`
	Inode  uint64 `json:"ino"`
	Offset int64  `json:"offset"`
	// HeadLen bytes at the file's beginning have this CRC-32.
	HeadLen int64  `json:"head_len"`
	Head    uint32 `json:"head"`
}

func (p *position) appendFrame(b []byte) []byte {
	start := len(b)
	text, err := json.Marshal(p)
	if err != nil { // a path that is not UTF-8 is written nevertheless: it cannot fail
		return b
	}
	b, _ = spool.End(append(spool.Begin(b, kindPosition), text...), start)
	return b
}

func decodePosition(payload []byte) (position, error) {
	var p position
	err := json.Unmarshal(payload, &p)
	if err == nil && (p.Path == "" || p.Offset < 0 || p.HeadLen < 0) {
		err = errors.New("usage: not a position")
	}
	return p, err
}

const (
	pollEvery   = 50 * time.Millisecond
	tailBuffer  = 256 << 10 // also the longest line
	headMax     = 256
	settleAfter = 2 * time.Second // how long a file that was replaced must be quiet
	askAgain    = time.Second     // between attempts after a failure
	// rotatedSuffix is that of a file that weir renamed and has not read to its
	// end.
	rotatedSuffix = ".rotated"
)

// tailer follows one log file.
type tailer struct {
	r      *Recorder
	path   string
	reopen func() error
	file   *os.File
	at     position
	buf    []byte
	// skipping is set inside a line that is too long.
	skipping bool
	// replaced is since when another file stands at path and ours is quiet.
	replaced time.Time
	asked    time.Time // when reopen was last called
}

// TailFile follows Envoy's JSON access log until ctx ends, and then reads what
// is left. How far it read is journalled together with what it took, so that a
// restart neither loses an entry nor takes one twice. It starts at the beginning
// of a file that it has never seen.
//
// When reopen is given, a file that has grown past Options.MaxLogBytes is renamed,
// reopen is called to make Envoy open a new one, and the old one is deleted once
// it was read. Files that others rotate or truncate are followed too.
func (r *Recorder) TailFile(ctx context.Context, path string, reopen func() error) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("usage: %w", err)
	}
	t := r.newTailer(path, reopen)
	defer t.closeFile()
	r.catching.Add(1)
	caughtUp := sync.OnceFunc(func() { r.catching.Add(-1) })
	defer caughtUp()
	for {
		more, err := t.step(context.WithoutCancel(ctx))
		wait := pollEvery
		switch {
		case err != nil:
			r.opt.Logger.Error("access log cannot be read", "path", path, "error", err)
			wait = askAgain
		case more:
			continue
		default:
			caughtUp()
			if err := t.turn(ctx); err != nil {
				r.opt.Logger.Error("access log cannot be rotated", "path", path, "error", err)
				wait = askAgain
			}
		}
		select {
		case <-ctx.Done():
			return t.readAll(context.WithoutCancel(ctx))
		case <-time.After(wait):
		}
	}
}

func (r *Recorder) newTailer(path string, reopen func() error) *tailer {
	return &tailer{r: r, path: path, reopen: reopen, buf: make([]byte, tailBuffer)}
}

// readAll reads until there is no more.
func (t *tailer) readAll(ctx context.Context) error {
	for {
		if more, err := t.step(ctx); err != nil || !more {
			return err
		}
	}
}

// step takes what one read returns. It tells whether it got anything.
func (t *tailer) step(ctx context.Context) (more bool, err error) {
	if t.file == nil {
		if err := t.open(); err != nil || t.file == nil {
			return false, err
		}
	}
	st, err := t.file.Stat()
	if err != nil {
		return false, err
	}
	if st.Size() < t.at.Offset {
		t.r.metrics.drop(dropLogLost)
		t.r.opt.Logger.Warn("access log was truncated", "path", t.path)
		t.begin(t.file, st)
	}
	t.r.metrics.behind.Set(float64(st.Size() - t.at.Offset))
	n, err := t.file.ReadAt(t.buf, t.at.Offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	next := t.at
	entries, used := t.entries(t.buf[:n])
	if used == 0 {
		return false, nil
	}
	t.replaced = time.Time{}
	next.Offset += int64(used)
	t.fingerprint(&next)
	if err := t.r.take(ctx, entries, &next); err != nil {
		return false, err
	}
	t.at = next
	return true, nil
}

// entries decodes the whole lines of b and tells how many bytes they take.
func (t *tailer) entries(b []byte) (list []Entry, used int) {
	for {
		i := bytes.IndexByte(b[used:], '\n')
		if i < 0 {
			break
		}
		line := b[used : used+i]
		at := t.at.Offset + int64(used)
		used += i + 1
		if t.skipping {
			t.skipping = false
			continue
		}
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		e, err := DecodeLine(line)
		if err != nil {
			t.r.metrics.drop(dropGarbled)
			continue
		}
		if e.ID == nil {
			e.Digest = digest(line, fmt.Sprint(t.at.Device, t.at.Inode, at))
		}
		list = append(list, e)
	}
	if used == 0 && len(b) == len(t.buf) {
		if !t.skipping {
			t.r.metrics.drop(dropTooLong)
		}
		t.skipping = true
		used = len(b)
	}
	return list, used
}

// fingerprint notes the beginning of the file, as far as it was read.
func (t *tailer) fingerprint(p *position) {
	want := min(p.Offset, headMax)
	if want == p.HeadLen {
		return
	}
	if sum, err := headSum(t.file, want); err == nil {
		p.HeadLen, p.Head = want, sum
	}
}

func headSum(f *os.File, n int64) (uint32, error) {
	b := make([]byte, n)
	if _, err := f.ReadAt(b, 0); err != nil {
		return 0, err
	}
	return crc32.ChecksumIEEE(b), nil
}

// open finds the file to go on with: the one of the journalled position, be it
// renamed or not; else one that an earlier run renamed; else the one at path.
func (t *tailer) open() error {
	t.r.posMu.Lock()
	saved, known := t.r.positions[t.path]
	t.r.posMu.Unlock()
	names := []string{t.path + rotatedSuffix, t.path}
	if known {
		for _, name := range names {
			if f := openAt(name, saved); f != nil {
				t.file, t.at = f, saved
				t.dropRotated(name)
				return nil
			}
		}
		t.r.metrics.drop(dropLogLost)
		t.r.opt.Logger.Warn("access log is not the one that was read before: reading it from its beginning", "path", t.path)
	}
	for _, name := range names {
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		st, err := f.Stat()
		if err != nil {
			return errors.Join(err, f.Close())
		}
		t.begin(f, st)
		return nil
	}
	return nil
}

// openAt opens the file when it is the one of p.
func openAt(name string, p position) *os.File {
	f, err := os.Open(name)
	if err != nil {
		return nil
	}
	st, err := f.Stat()
	if err == nil {
		dev, ino := fileID(st)
		sum, serr := headSum(f, p.HeadLen)
		if dev == p.Device && ino == p.Inode && st.Size() >= p.Offset && serr == nil && sum == p.Head {
			return f
		}
	}
	f.Close()
	return nil
}

// dropRotated deletes a renamed file that was read to its end: a position in the
// file at path says so.
func (t *tailer) dropRotated(reading string) {
	if reading == t.path && t.reopen != nil {
		os.Remove(t.path + rotatedSuffix)
	}
}

// begin starts at the beginning of f.
func (t *tailer) begin(f *os.File, st fs.FileInfo) {
	dev, ino := fileID(st)
	t.file, t.skipping, t.replaced = f, false, time.Time{}
	t.at = position{Path: t.path, Device: dev, Inode: ino}
}

func fileID(st fs.FileInfo) (dev, ino uint64) {
	if s, ok := st.Sys().(*syscall.Stat_t); ok {
		return s.Dev, s.Ino
	}
	return 0, 0
}

func (t *tailer) closeFile() {
	if t.file != nil {
		t.file.Close()
		t.file = nil
	}
}

// turn looks, at the end of our file, whether to go on to another one, or to
// make Envoy begin one.
func (t *tailer) turn(ctx context.Context) error {
	if t.file == nil {
		return nil
	}
	st, err := os.Stat(t.path)
	if errors.Is(err, fs.ErrNotExist) {
		return t.askReopen() // renamed, and Envoy has not opened a new one yet
	}
	if err != nil {
		return err
	}
	if dev, ino := fileID(st); dev == t.at.Device && ino == t.at.Inode {
		return t.rotate(st)
	}
	now := t.r.opt.Now()
	if t.replaced.IsZero() {
		t.replaced = now
	}
	if now.Sub(t.replaced) < t.r.quiet {
		return nil
	}
	return t.change(ctx)
}

// rotate renames the file when it is too large.
func (t *tailer) rotate(st fs.FileInfo) error {
	if t.reopen == nil || st.Size() < t.r.opt.MaxLogBytes {
		return nil
	}
	if err := os.Rename(t.path, t.path+rotatedSuffix); err != nil {
		return err
	}
	t.asked = time.Time{}
	return t.askReopen()
}

func (t *tailer) askReopen() error {
	now := t.r.opt.Now()
	if t.reopen == nil || !t.asked.IsZero() && now.Sub(t.asked) < askAgain {
		return nil
	}
	t.asked = now
	return t.reopen()
}

// change goes on to the file that stands at path now. Its beginning is
// journalled before the old one is deleted.
func (t *tailer) change(ctx context.Context) error {
	f, err := os.Open(t.path)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	old := *t
	t.begin(f, st)
	if err := t.r.take(ctx, nil, &t.at); err != nil {
		t.file, t.at = old.file, old.at
		return errors.Join(err, f.Close())
	}
	old.closeFile()
	t.dropRotated(t.path)
	return nil
}
