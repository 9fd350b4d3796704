// Package limit is the ledger: it reserves before a request leaves, settles
// after, and lets no limit be passed. It knows no wire and writes nothing; what
// it counts can be taken out and put back, see Ledger.Changed and Load.
//
// What is promised. Take any window of a limit's length, or any period of its
// calendar. The requests admitted in it, or the tokens or the money used in it at
// any moment between admission and settlement, are at most the limit's amount, as
// long as no request uses more than it reserved. Three rules give this. A request
// counts from its admission on until one window later. Tokens and money count as
// reserved from admission until they are settled, however long the answer
// streams, and as used from then on: until one window later, or until the period
// ends in which they were settled. What is reserved counts in every window and
// period that it reaches into.
//
// Windows slide: the bucket of GCRA would let twice the amount through around the
// moment when it is full, and so is no hard limit. Time is kept in slots of a
// sixtieth of the window, and a slot leaves when its end does, so that nothing
// leaves early and nothing stays longer than a sixtieth too long.
//
// A request that used more than it reserved is counted with what it used: the
// excess is a debt that refuses others until the window has passed it.
package limit

import (
	"time"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

// Request is what is to be reserved: of several options the first for which
// there is room.
type Request struct {
	ID        string // unique; what Settle and Release name
	Principal ai.Principal
	Model     string   // the virtual model's name
	Targets   []Target // in the order in which they are tried
	Options   []Option // at most MaxOptions, the one that is liked best first; none is one without output
}

// MaxOptions is how many options a request may have.
const MaxOptions = 4

// Option is an output that the request may be allowed.
type Option struct {
	Output int64 // tokens, the ceiling over all answers
	// Generous says that the output is more than is likely to be used: it is for
	// when much is left, so that what nobody uses does not keep others out. It
	// needs a quarter of the limit free, or 16 times itself where that is less.
	Generous bool
}

// Target is a pool that may be tried.
type Target struct {
	Pool  string
	Input int64 // tokens, an upper bound as this pool counts
	Price ai.Price
	// Billed says that the pool may charge for an attempt that was given up, so
	// that it counts beside the one that answers.
	Billed bool
	// Tries is how often the pool may be tried; 0 is once.
	Tries int64
	// Overrun is by how many per cent the pool's answers have passed their ceiling.
	Overrun int64
}

// Used is what was used of one pool.
type Used struct {
	Pool  string
	Usage ai.Usage
	Cost  ai.NanoUSD
}

// Figure is the state of one limit, for x-ratelimit headers. Limit 0 means that
// no limit of this kind applies.
type Figure struct {
	Limit     int64
	Remaining int64 // after this request when it was admitted; never negative
	// Reset is until the window is empty if nothing else comes. While something
	// is reserved, it takes that to be settled now.
	Reset time.Duration
}

// Result is the answer to Reserve.
type Result struct {
	OK bool
	// Option is the index of the option that was admitted.
	Option int
	// Limit is the one that refused, and of several the one that refuses for
	// longest; nil when OK.
	Limit *plan.Limit
	// Pool is whose count refused, where the limit counts each pool apart.
	Pool string
	// RetryAfter is when the request would be admitted, if nothing else came
	// before. Where it waits for reservations of other requests, whose end
	// nobody knows, it is a tenth of the window, at least a second.
	RetryAfter time.Duration
	// Impossible says that the request alone is larger than the limit: trying
	// again never helps, and RetryAfter is 0.
	Impossible bool
	// Open says that the limit's breaker is open.
	Open bool
	// Unavailable says that the ledger could not be asked, or does not know all
	// that was used: nothing is admitted on a guess.
	Unavailable bool
	// Reported is a limit that only reports and would have refused; nil for none.
	Reported *plan.Limit
	// The tightest limits of each kind: requests, and tokens of any class.
	Requests, Tokens Figure
	// Held says that something is held under the request's id, until Settle or
	// Release.
	Held bool
}

// State is one count of one limit.
type State struct {
	Limit    *plan.Limit
	Scope    Scope
	Used     int64         // settled; of requests, admitted
	Reserved int64         // admitted and not settled; of concurrency, running
	Left     int64         // never negative
	Open     bool          // its breaker is open
	Reset    time.Duration // as Figure.Reset
}

// fill notes how much a request wants with each of its options, and how much has
// to be free for it.
func (d *demand) fill(r *Request) {
	options := r.options()
	for i := range options {
		n := r.amount(d.limit, d.pool, options[i].Output)
		d.n[i], d.needs[i] = n, n
		if options[i].Generous {
			d.needs[i] = max(n, min(16*n, d.limit.Amount/4))
		}
	}
}

var noOutput = []Option{{}}

func (r *Request) options() []Option {
	if len(r.Options) == 0 {
		return noOutput
	}
	return r.Options[:min(len(r.Options), MaxOptions)]
}

// Most is the most that the request can use of a limit with an output of so many
// tokens, over all answers: where the limit counts each pool apart, of one pool.
func (r *Request) Most(l *plan.Limit, output int64) (n int64) {
	if !l.PerPool {
		return r.amount(l, "", output)
	}
	for i := range r.Targets {
		if l.Counts(r.Targets[i].Pool) {
			n = max(n, r.amount(l, r.Targets[i].Pool, output))
		}
	}
	return n
}

// amount is the most that the request can use of a limit: what one attempt uses
// that answers, and every attempt before it that may be billed all the same.
func (r *Request) amount(l *plan.Limit, pool string, output int64) int64 {
	if l.Unit == plan.UnitRequests || l.Unit == plan.UnitConcurrency {
		return 1
	}
	var billed, answering int64
	for i := range r.Targets {
		t := &r.Targets[i]
		if pool != "" && t.Pool != pool || !l.Counts(t.Pool) {
			continue
		}
		n := t.amount(l.Unit, output)
		if t.Billed {
			billed = clamp(billed + n*min(max(t.Tries, 1), maxTries))
		} else {
			answering = max(answering, n)
		}
	}
	return clamp(billed + answering)
}

func (t *Target) amount(unit plan.Unit, output int64) int64 {
	output = clamp(output)
	output += (output*min(max(t.Overrun, 0), maxOverrun) + 99) / 100 // 2^60 at the most
	switch unit {
	case plan.UnitInputTokens:
		return clamp(t.Input)
	case plan.UnitOutputTokens:
		return clamp(output)
	case plan.UnitUSD:
		return clamp(int64(t.Price.Bound(clamp(t.Input), clamp(output))))
	}
	return clamp(clamp(t.Input) + clamp(output)) // tokens; also an unknown unit, so that it is not free of charge
}

// Spent is what was used of a limit. Pool is set where the limit counts each
// apart.
func Spent(l *plan.Limit, pool string, used []Used) (n int64) {
	for i := range used {
		u := &used[i]
		if pool != "" && u.Pool != pool || !l.Counts(u.Pool) {
			continue
		}
		switch l.Unit {
		case plan.UnitInputTokens:
			n += clamp(u.Usage.TotalInput())
		case plan.UnitOutputTokens:
			n += clamp(u.Usage.Output)
		case plan.UnitUSD:
			n += clamp(int64(u.Cost))
		default:
			n += clamp(clamp(u.Usage.TotalInput()) + clamp(u.Usage.Output))
		}
	}
	return clamp(n)
}

// maxAmount is the most that one request counts, of anything: well above any
// limit, and such that sums neither overflow nor lose a digit where numbers are
// floating (Redis computes in them).
const maxAmount = 1 << 50

// maxTries bounds how often a pool is tried.
const maxTries = 16

// maxOverrun bounds what is kept free for a backend that minds no ceiling.
const maxOverrun = 1000

func clamp(n int64) int64 { return min(max(n, 0), maxAmount) }
