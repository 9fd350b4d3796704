package usage

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
	"github.com/weirproxy/weir/usage/store"
	"github.com/weirproxy/weir/usage/store/sqlite"
)

// The environment of a process that records until it is killed.
const (
	envCrashDir  = "WEIR_TEST_USAGE_CRASH_DIR"
	envCrashBase = "WEIR_TEST_USAGE_CRASH_BASE" // its first id
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(envCrashDir); dir != "" {
		base, _ := strconv.Atoi(os.Getenv(envCrashBase))
		if err := recordUntilKilled(dir, base); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

func crashOptions(dir string, s store.Store) Options {
	return Options{
		Dir: filepath.Join(dir, "spool"), Store: s, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Deadline: time.Hour, Grace: time.Nanosecond, FlushEvery: 5 * time.Millisecond, SyncEvery: 5 * time.Millisecond,
		SegmentBytes: 16 << 10, MaxLogBytes: 64 << 10,
	}
}

// recordUntilKilled says on stdout what was journalled: "a N" for an admitted
// request, "r N" for a refused one, and "reopen" where Envoy is to reopen its
// log.
func recordUntilKilled(dir string, base int) error {
	s, err := sqlite.Open(context.Background(), filepath.Join(dir, "usage.db"))
	if err != nil {
		return err
	}
	r, err := Open(crashOptions(dir, s))
	if err != nil {
		return err
	}
	r.quiet = 5 * time.Millisecond
	go r.Run(context.Background())
	go r.TailFile(context.Background(), filepath.Join(dir, "access.log"), func() error {
		_, err := fmt.Println("reopen")
		return err
	})
	var next atomic.Int64
	next.Store(int64(base))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for err == nil {
				n := int(next.Add(1))
				d, word := admitted(n), "a"
				if n%5 == 0 {
					d, word = refused(n), "r"
				}
				if err := r.Decided(d); err != nil {
					fmt.Fprintln(os.Stderr, err)
					return
				}
				fmt.Printf("%s %d\n", word, n)
				time.Sleep(100 * time.Microsecond)
			}
		})
	}
	wg.Wait()
	return nil
}

// envoyStandIn writes the entries of what was admitted, all but every 13th.
type envoyStandIn struct {
	*logFile
	acked  map[int]string
	logged map[int]bool

	rotations int
}

func (e *envoyStandIn) run(t *testing.T, dir string, base int, life time.Duration) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envCrashDir+"="+dir, fmt.Sprint(envCrashBase, "=", base))
	var complaints bytes.Buffer // a data race, say
	cmd.Stderr = &complaints
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var kill *time.Timer
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if kill == nil { // from its first line on it works
			kill = time.AfterFunc(life, func() { cmd.Process.Kill() })
		}
		word, number, _ := strings.Cut(lines.Text(), " ")
		n, err := strconv.Atoi(number)
		switch {
		case word == "reopen":
			e.reopen()
			e.rotations++
		case err != nil:
			// the last line, cut short
		default:
			e.acked[n] = word
			if word == "a" && n%13 != 0 {
				e.logged[n] = true
				e.log(n)
			}
		}
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("it was not killed")
	}
	if complaints.Len() > 0 {
		t.Errorf("%s", complaints.String())
	}
}

// weir is killed at random points, again and again, while it decides, reads
// Envoy's log, rotates it, stores and lets segments go. Afterwards each request
// whose decision was journalled has one event, and the roll-ups say the same.
func TestKilledAtAnyPoint(t *testing.T) {
	dir := t.TempDir()
	e := &envoyStandIn{logFile: &logFile{t: t, path: filepath.Join(dir, "access.log")}, acked: map[int]string{}, logged: map[int]bool{}}
	e.reopen()
	rounds := 0
	for ; rounds < 12 || len(e.acked) < 1000 || e.rotations < 3; rounds++ {
		if rounds == 100 {
			t.Fatalf("only %d decisions were made, and %d rotations", len(e.acked), e.rotations)
		}
		e.run(t, dir, (rounds+1)*1_000_000, time.Duration(20+rand.IntN(150))*time.Millisecond)
	}

	w := &world{t: t, dir: dir, clock: &clock{now: time.Now()}, ledger: &ledger{}}
	s, err := sqlite.Open(t.Context(), filepath.Join(dir, "usage.db"))
	if err != nil {
		t.Fatal(err)
	}
	w.store = s
	opt := crashOptions(dir, s)
	opt.Now = w.clock.Now
	if w.Recorder, err = Open(opt); err != nil {
		t.Fatal(err)
	}
	defer w.die()
	tl := w.newTailer(e.path, func() error { return e.reopen() })
	defer tl.closeFile()
	w.read(tl)
	w.clock.add(2 * time.Hour)
	for range 20 {
		w.closeExpired(t.Context())
	}
	compareWithAcked(t, e, w.events(), rounds)
	compareRollups(t, s)
	if n := w.log.Damage().Corrupt; n != 0 {
		t.Errorf("%d corrupt bytes", n)
	}
}

func compareWithAcked(t *testing.T, e *envoyStandIn, events []*usagev1.Event, rounds int) {
	outcome := map[int]string{}
	for _, ev := range events {
		n, err := strconv.ParseInt(ev.Decision.Id, 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		outcome[int(n)] = ev.Outcome
	}
	if len(outcome) != len(events) {
		t.Errorf("%d events for %d ids", len(events), len(outcome))
	}
	wrong := 0
	for n, word := range e.acked {
		want := OutcomeRefused
		if word == "a" {
			want = OutcomeUnknown
			if e.logged[n] {
				want = OutcomeCompleted
			}
		}
		if outcome[n] != want {
			if wrong++; wrong < 10 {
				t.Errorf("request %d: outcome %q, want %q", n, outcome[n], want)
			}
		}
	}
	unacked := len(outcome) - len(e.acked)
	t.Logf("%d decisions acknowledged, %d entries logged, %d events, %d of them journalled but not acknowledged", len(e.acked), len(e.logged), len(events), unacked)
	if unacked < 0 || unacked > rounds*4 {
		t.Errorf("%d events for requests that were not acknowledged", unacked)
	}
}

func compareRollups(t *testing.T, s *sqlite.Store) {
	var sums []store.Row
	for _, by := range [][]store.Dimension{{}, {store.Key}, {store.Reason, store.Kind}} { // minutes, hours, events
		rows, err := s.Usage(t.Context(), store.Query{Since: noon.Add(-time.Hour), Until: time.Now().Add(24 * time.Hour), By: by})
		if err != nil {
			t.Fatal(err)
		}
		var sum store.Row
		for _, r := range rows {
			sum.Requests += r.Requests
			sum.Tokens.Input += r.Tokens.Input
			sum.Tokens.Output += r.Tokens.Output
			sum.Cost += r.Cost
		}
		sums = append(sums, sum)
	}
	for _, sum := range sums[1:] {
		if sum.Requests != sums[0].Requests || sum.Tokens != sums[0].Tokens || sum.Cost != sums[0].Cost {
			t.Errorf("roll-ups differ from events: %+v", sums)
		}
	}
}

// A crash may leave of the spool any beginning: whatever it is, reading Envoy's
// log again from where the spool says gives each entry in it one event.
func TestSpoolCutAnywhere(t *testing.T) {
	w, l := newWorld(t), newLogFile(t)
	tl := w.newTailer(l.path, nil)
	for n := 1; n <= 4; n++ {
		w.decide(admitted(n))
		if n%2 == 0 { // two entries in one read
			l.log(n-1, n)
			w.read(tl)
		}
	}
	tl.closeFile()
	name := fmt.Sprintf("%020d.log", w.log.Segments()[0])
	w.die()
	whole, err := os.ReadFile(filepath.Join(w.opt.Dir, name))
	if err != nil {
		t.Fatal(err)
	}
	for cut := 8; cut <= len(whole); cut += 1 + len(whole)/97 {
		if err := os.RemoveAll(w.dir); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(w.opt.Dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(w.opt.Dir, name), whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		w.start()
		tl := w.newTailer(l.path, nil)
		w.read(tl)
		tl.closeFile()
		if got := len(strings.Fields(w.completed())); got != 4 {
			t.Errorf("cut at %d of %d: %d events completed, want 4", cut, len(whole), got)
		}
		w.die()
	}
}
