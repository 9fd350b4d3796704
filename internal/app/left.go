package app

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/weirproxy/weir/extproc/pipeline"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/limit"
)

// states tells of the counts that a request would be judged by.
type states interface {
	States(limits []*plan.Limit, r *limit.Request) []limit.State
}

// leftOf is which part of a limit is left for who calls, by the tightest of its counts.
// It is not known where the limit does not count such a request, or nobody answers.
func leftOf(ledger states, l *plan.Limit, p ai.Principal, model string) (part float64, ok bool) {
	if l.Amount <= 0 || !l.Applies(&p, model) {
		return 0, false
	}
	part = 1
	for _, s := range ledger.States([]*plan.Limit{l}, &limit.Request{Principal: p, Model: model}) {
		part, ok = min(part, float64(s.Left)/float64(l.Amount)), true
	}
	return part, ok
}

// leftHere reads a ledger of this process.
func leftHere(ledger states) func(*plan.Limit, *pipeline.Exchange) (float64, bool) {
	return func(l *plan.Limit, ex *pipeline.Exchange) (float64, bool) {
		return leftOf(ledger, l, ex.Principal, ex.Decision.Model.Name)
	}
}

const (
	// leftAge is how old an answer may be before the limit store is asked again.
	leftAge = 500 * time.Millisecond
	// leftTrusted is how old an answer may be to go by.
	leftTrusted = 30 * time.Second
	// leftKept bounds the answers that are kept.
	leftKept = 20_000
)

// leftThere remembers what a limit store said: a decision goes by what was said last,
// and does not wait to hear more.
type leftThere struct {
	ledger states
	now    func() time.Time
	asks   chan leftAsk

	mu    sync.Mutex
	known map[string]leftAnswer
}

type leftAsk struct {
	key   string
	limit *plan.Limit
	by    ai.Principal
	model string
}

type leftAnswer struct {
	part  float64
	ok    bool
	at    time.Time // zero: not answered yet
	asked time.Time
}

func newLeftThere(ledger states) *leftThere {
	return &leftThere{ledger: ledger, now: time.Now, asks: make(chan leftAsk, 256), known: map[string]leftAnswer{}}
}

// left is what was said last. The first time nothing is known.
func (t *leftThere) left(l *plan.Limit, ex *pipeline.Exchange) (float64, bool) {
	p, model := ex.Principal, ex.Decision.Model.Name
	key := strings.Join([]string{l.Ident(), p.Organisation, p.Team, p.Application, p.Key, p.User, model}, "\x00")
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.known[key]
	if now.Sub(a.asked) >= leftAge {
		select {
		case t.asks <- leftAsk{key, l, p, model}:
			a.asked = now
			if len(t.known) >= leftKept {
				t.forget(now)
			}
			t.known[key] = a
		default: // there is so much to ask that this can wait
		}
	}
	return a.part, a.ok && now.Sub(a.at) <= leftTrusted
}

// forget makes room: of those that nobody asked for lately, or else of some.
func (t *leftThere) forget(now time.Time) {
	for key, a := range t.known {
		if now.Sub(a.asked) > leftTrusted {
			delete(t.known, key)
		}
	}
	for key := range t.known { // in a random order
		if len(t.known) < leftKept {
			return
		}
		delete(t.known, key)
	}
}

// run asks until ctx ends.
func (t *leftThere) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case ask := <-t.asks:
			part, ok := leftOf(t.ledger, ask.limit, ask.by, ask.model)
			t.mu.Lock()
			// One that failed says nothing new: what was said before holds while it is trusted.
			if a, still := t.known[ask.key]; still && (ok || !a.ok) {
				a.part, a.ok, a.at = part, ok, t.now()
				t.known[ask.key] = a
			}
			t.mu.Unlock()
		}
	}
}
