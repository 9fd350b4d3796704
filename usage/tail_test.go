package usage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// logFile is Envoy's side of an access log file.
type logFile struct {
	t    testing.TB
	path string
	f    *os.File
}

func newLogFile(t testing.TB) *logFile {
	l := &logFile{t: t, path: filepath.Join(t.TempDir(), "access.log")}
	l.reopen()
	return l
}

// reopen is what Envoy does when it is told to.
func (l *logFile) reopen() error {
	if l.f != nil {
		l.f.Close()
	}
	var err error
	l.f, err = os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		l.t.Fatal(err)
	}
	return nil
}

func (l *logFile) write(text string) {
	l.t.Helper()
	if _, err := l.f.WriteString(text); err != nil {
		l.t.Fatal(err)
	}
}

func (l *logFile) log(ids ...int) {
	for _, n := range ids {
		l.write(lineFor(n) + "\n")
	}
}

func lineFor(n int) string { return strings.Replace(lineOfFinished, testID(1), testID(n), 1) }

// read drives a tailer to the end of what there is, twice as far as rotation
// needs.
func (w *world) read(t *tailer) {
	w.t.Helper()
	for range 4 {
		if err := t.readAll(context.Background()); err != nil {
			w.t.Fatal(err)
		}
		if err := t.turn(context.Background()); err != nil {
			w.t.Fatal(err)
		}
		w.clock.add(settleAfter)
	}
}

// outcomes are the ids of the events that were completed by an entry.
func (w *world) completed() string {
	var ids []string
	for _, e := range w.events() {
		if e.Outcome == OutcomeCompleted && e.Status == 200 && e.Tokens.Input == 712 {
			ids = append(ids, strings.TrimLeft(e.Decision.Id, "0"))
		}
	}
	return strings.Join(ids, " ")
}

func (w *world) decideAll(n int) {
	for i := 1; i <= n; i++ {
		w.decide(admitted(i))
	}
}

func TestTailFollows(t *testing.T) {
	w, l := newWorld(t), newLogFile(t)
	w.decideAll(4)
	tl := w.newTailer(l.path, nil)
	defer tl.closeFile()
	l.log(1)
	w.read(tl)
	line := lineFor(2) + "\n"
	l.write(line[:100])
	w.read(tl)
	l.write(line[100:])
	l.log(3)
	w.read(tl)
	l.write("garbage\n\n{\"id\":5}\n")
	l.log(4)
	w.read(tl)
	if got := w.completed(); got != "1 2 3 4" {
		t.Errorf("completed %s", got)
	}
	if n := w.metric("weir_usage_dropped_total", dropGarbled); n != 2 {
		t.Errorf("%v garbled lines", n)
	}
}

// A restart at any point goes on where the last one stopped.
func TestTailRestarts(t *testing.T) {
	w, l := newWorld(t), newLogFile(t)
	w.decideAll(6)
	l.write(`{"start":"1772366400.0","status":404}` + "\n") // has no id of its own
	for n := 1; n <= 6; n++ {
		l.log(n)
		tl := w.newTailer(l.path, nil)
		w.read(tl)
		tl.closeFile()
		w.restart()
	}
	if got := w.completed(); got != "1 2 3 4 5 6" {
		t.Errorf("completed %s", got)
	}
	if n := len(w.events()); n != 7 {
		t.Errorf("%d events, want 7", n)
	}
	if n := w.metric("weir_usage_dropped_total", dropDuplicate); n != 0 {
		t.Errorf("%v entries were read again", n)
	}
}

// When even the position is lost, the file is read again and nothing counts
// twice.
func TestTailReadsAgainWithoutHarm(t *testing.T) {
	w, l := newWorld(t), newLogFile(t)
	w.decideAll(3)
	l.log(1, 2)
	l.write(`{"start":"1772366400.0","status":404}` + "\n" + `{"start":"1772366400.0","status":404}` + "\n")
	l.log(3)
	tl := w.newTailer(l.path, nil)
	w.read(tl)
	tl.closeFile()
	before := len(w.events())
	w.die()
	if err := os.RemoveAll(w.opt.Dir); err != nil {
		t.Fatal(err)
	}
	w.start()
	tl = w.newTailer(l.path, nil)
	defer tl.closeFile()
	w.read(tl)
	if got := len(w.events()); got != before || before != 5 {
		t.Errorf("%d events, then %d; want 5", before, got)
	}
}

// The position lives in the newest segment, whatever goes.
func TestTailPositionOutlivesSegments(t *testing.T) {
	w, l := newWorld(t), newLogFile(t)
	w.decideAll(1)
	l.log(1)
	tl := w.newTailer(l.path, nil)
	w.read(tl)
	tl.closeFile()
	for range 5 {
		w.restart() // a new segment each
		w.events()  // and the old ones go
	}
	if n := len(w.log.Segments()); n != 1 {
		t.Fatalf("%d segments", n)
	}
	tl = w.newTailer(l.path, nil)
	defer tl.closeFile()
	w.read(tl)
	if n := w.metric("weir_usage_dropped_total", dropDuplicate); n != 0 {
		t.Errorf("%v entries were read again", n)
	}
}

func TestTailRotates(t *testing.T) {
	w, l := newWorld(t), newLogFile(t)
	w.Recorder.opt.MaxLogBytes = 1000
	w.decideAll(6)
	asked := 0
	busy := errors.New("Envoy is starting")
	tl := w.newTailer(l.path, func() error {
		asked++
		return busy
	})
	defer tl.closeFile()
	l.log(1, 2, 3)
	if err := tl.readAll(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := tl.turn(context.Background()); err == nil {
		t.Fatal("a failed reopen was not reported")
	}
	l.log(4) // Envoy still writes to the renamed file
	busy = nil
	w.read(tl)
	if asked < 3 {
		t.Errorf("reopen was called %d times", asked)
	}
	l.log(5)
	l.reopen()
	l.log(6)
	w.read(tl)
	if got := w.completed(); got != "1 2 3 4 5 6" {
		t.Errorf("completed %s", got)
	}
	if _, err := os.Stat(l.path + rotatedSuffix); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the rotated file is still there:", err)
	}
}

// weir dies at each point of a rotation.
func TestTailRotationSurvivesARestart(t *testing.T) {
	w, l := newWorld(t), newLogFile(t)
	w.opt.MaxLogBytes = 1000
	w.restart()
	w.decideAll(7)
	var tl *tailer
	again := func() {
		if tl != nil {
			tl.closeFile()
		}
		w.restart()
		tl = w.newTailer(l.path, func() error { return nil })
	}
	again()
	l.log(1, 2, 3)
	w.read(tl)
	again() // renamed, not reopened
	l.log(4)
	w.read(tl)
	again()
	l.log(5)
	l.reopen()
	l.log(6)
	again() // reopened, the old one not yet read to its end
	w.read(tl)
	again()
	l.log(7)
	w.read(tl)
	if got := w.completed(); got != "1 2 3 4 5 6 7" {
		t.Errorf("completed %s", got)
	}
	if _, err := os.Stat(l.path + rotatedSuffix); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the rotated file is still there:", err)
	}
	tl.closeFile()
}

func TestTailTruncatedAndReplaced(t *testing.T) {
	w, l := newWorld(t), newLogFile(t)
	w.decideAll(6)
	tl := w.newTailer(l.path, nil)
	defer func() { tl.closeFile() }()
	l.log(1, 2)
	w.read(tl)
	if err := os.Truncate(l.path, 0); err != nil {
		t.Fatal(err)
	}
	l.log(3)
	w.read(tl)
	if n := w.metric("weir_usage_dropped_total", dropLogLost); n != 1 {
		t.Errorf("%v losses noted, want 1", n)
	}
	// Rotated by somebody else while weir was down, and an inode used again.
	tl.closeFile()
	w.restart()
	if err := os.Remove(l.path); err != nil {
		t.Fatal(err)
	}
	l.reopen()
	l.log(4, 5)
	tl = w.newTailer(l.path, nil)
	w.read(tl)
	// And while it was up.
	if err := os.Rename(l.path, l.path+".1"); err != nil {
		t.Fatal(err)
	}
	l.reopen()
	l.log(6)
	w.read(tl)
	if got := w.completed(); got != "1 2 3 4 5 6" {
		t.Errorf("completed %s", got)
	}
	if n := w.metric("weir_usage_dropped_total", dropLogLost); n != 1 {
		t.Errorf("%v losses noted after the restart, want 1", n)
	}
}

func TestTailPassesOverALongLine(t *testing.T) {
	w, l := newWorld(t), newLogFile(t)
	w.decideAll(2)
	tl := w.newTailer(l.path, nil)
	defer tl.closeFile()
	l.log(1)
	l.write(`{"path":"` + strings.Repeat("x", 3*tailBuffer) + `"}` + "\n")
	l.log(2)
	w.read(tl)
	if got := w.completed(); got != "1 2" {
		t.Errorf("completed %s", got)
	}
	if n := w.metric("weir_usage_dropped_total", dropTooLong); n != 1 {
		t.Errorf("%v long lines", n)
	}
}

func TestTailFile(t *testing.T) {
	w := newWorld(t)
	w.decideAll(2)
	path := filepath.Join(t.TempDir(), "later.log")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- w.TailFile(ctx, path, nil) }()
	if err := os.WriteFile(path, []byte(lineFor(1)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for w.metric("weir_usage_pending") != 1 {
		time.Sleep(time.Millisecond)
	}
	if w.catching.Load() != 0 {
		t.Error("still catching up")
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fmt.Fprintln(f, lineFor(2))
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := w.completed(); got != "1 2" {
		t.Errorf("completed %s", got)
	}
}

// FuzzTail writes any bytes in any two pieces: the same events as in one.
func FuzzTail(f *testing.F) {
	f.Add([]byte(lineFor(1)+"\n\n{}\nx\n"+lineFor(2)+"\n"), 7)
	f.Add(bytes.Repeat([]byte("{\"start\":\"1\"}\n"), 3), 20)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		count := func(pieces ...[]byte) (n int) {
			r := &Recorder{}
			r.metrics = newMetrics(r)
			tl := r.newTailer("access.log", nil)
			var rest []byte
			for _, p := range pieces {
				rest = append(rest, p...)
				list, used := tl.entries(rest)
				n += len(list)
				rest = rest[used:]
				tl.at.Offset += int64(used)
			}
			return n
		}
		cut = min(max(cut, 0), len(b))
		if whole, split := count(b), count(b[:cut], b[cut:]); whole != split {
			t.Errorf("%d entries in one piece, %d in two", whole, split)
		}
	})
}
