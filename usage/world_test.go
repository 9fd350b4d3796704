package usage

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/weirproxy/weir/internal/ai"
	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
	"github.com/weirproxy/weir/usage/store/sqlite"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// clock stands still until it is moved.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// ledger notes what was settled.
type ledger struct {
	mu        sync.Mutex
	settled   map[string][]ai.Usage
	forgotten []string
}

func (l *ledger) Settle(e *usagev1.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	id := e.GetDecision().GetId()
	l.settled[id] = append(l.settled[id], Used(e))
}

func (l *ledger) Forget(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forgotten = append(l.forgotten, id)
}

// world is a recorder with what it needs; it can be killed and started again.
type world struct {
	t      testing.TB
	dir    string
	clock  *clock
	ledger *ledger
	opt    Options
	store  *sqlite.Store
	*Recorder
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, dir: t.TempDir(), clock: &clock{now: noon}, ledger: &ledger{settled: map[string][]ai.Usage{}}}
	w.opt = Options{
		Dir:      filepath.Join(w.dir, "spool"),
		Settler:  w.ledger,
		Now:      w.clock.Now,
		Deadline: time.Minute,
		Grace:    time.Nanosecond,
		Logger:   slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	w.start()
	t.Cleanup(func() { w.die() })
	return w
}

func (w *world) start() {
	w.t.Helper()
	var err error
	if w.store, err = sqlite.Open(context.Background(), filepath.Join(w.dir, "usage.db")); err != nil {
		w.t.Fatal(err)
	}
	w.opt.Store = w.store
	if w.Recorder, err = Open(w.opt); err != nil {
		w.t.Fatal(err)
	}
	w.clock.add(time.Millisecond) // past the grace
}

// die ends the recorder without storing anything.
func (w *world) die() {
	w.log.Close()
	w.store.Close()
}

func (w *world) restart() {
	w.t.Helper()
	w.die()
	w.start()
}

// events stores what is in the spool and returns all that is stored.
func (w *world) events() []*usagev1.Event {
	w.t.Helper()
	if err := w.sink.flush(context.Background()); err != nil {
		w.t.Fatal(err)
	}
	var list []*usagev1.Event
	err := w.store.Since(context.Background(), time.Unix(0, 0), func(e *usagev1.Event) error {
		list = append(list, e)
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return list
}

// one is the only event there is.
func (w *world) one() *usagev1.Event {
	w.t.Helper()
	list := w.events()
	if len(list) != 1 {
		w.t.Fatalf("%d events, want 1: %v", len(list), list)
	}
	return list[0]
}

func (w *world) decide(d *usagev1.Decision) {
	w.t.Helper()
	if err := w.Decided(d); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) entry(e Entry) {
	w.t.Helper()
	if err := w.Entry(context.Background(), e); err != nil {
		w.t.Fatal(err)
	}
}

// metric is a counter's or gauge's value; labels are joined by commas.
func (w *world) metric(name string, labels ...string) float64 {
	w.t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(w.Recorder)
	families, err := reg.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if labelsOf(m) == strings.Join(labels, ",") {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return 0
}

func labelsOf(m *dto.Metric) string {
	var list []string
	for _, l := range m.GetLabel() {
		list = append(list, l.GetValue())
	}
	return strings.Join(list, ",")
}

func testID(n int) string { return fmt.Sprintf("%032x", n) }

func idOf(n int) *ID {
	id, err := ParseID(testID(n))
	if err != nil {
		panic(err)
	}
	return &id
}

// admitted is a decision that sends a request to local-vllm, then to provider.
func admitted(n int) *usagev1.Decision {
	return &usagev1.Decision{
		Id: testID(n), Time: timestamppb.New(noon), Key: "demo", Application: "assistant", Team: "data",
		Model: "chat", RequestedModel: "chat", Kind: "chat", Verdict: VerdictAllowed, Rule: "default",
		Targets: []string{"local-vllm", "provider"}, InputTokens: 800, InputCertainty: usagev1.Certainty_CERTAINTY_ESTIMATED,
		ReservedInputTokens: 800, ReservedOutputTokens: 4096, MaxOutputTokens: 4096, Limits: []string{"tpm"},
		Prices: []*usagev1.TargetPrice{
			{Pool: "local-vllm", Input: 100e6, CachedInput: 10e6, Output: 400e6},
			{Pool: "provider", Input: 1000e6, CachedInput: 1000e6, Output: 4000e6},
		},
	}
}

func refused(n int) *usagev1.Decision {
	return &usagev1.Decision{
		Id: testID(n), Time: timestamppb.New(noon), Key: "demo", Team: "data", Model: "chat", Kind: "chat",
		Verdict: VerdictRefused, Reason: "limit_exceeded", Stage: "quota", Status: 429,
	}
}

// finished is Envoy's entry of a request that local-vllm answered.
func finished(n int) Entry {
	return Entry{
		ID: idOf(n), Start: noon, Duration: 2 * time.Second, Status: 200, Details: "via_upstream", Bytes: 900,
		Attempts: "local-vllm:200", Usage: fmt.Sprintf("in=712 cached=100 out=64 chunks=64 text=300 first=%d reported done finish=stop", noon.Add(183*time.Millisecond).UnixMicro()),
		Cluster: "pool/local-vllm", Tries: 1,
	}
}
