// Package limit is the in-process ledger: it reserves before a request leaves,
// settles after, and in no window lets a limit be passed. It knows no wire and
// keeps nothing on disk.
package limit

import (
	"time"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

// Request is what is to be reserved.
type Request struct {
	ID        string // unique; what Settle and Release name
	Principal ai.Principal
	Model     string // the virtual model's name
	Input     int64  // tokens, an upper bound
	Output    int64  // tokens, the ceiling over all answers
}

// Figure is the state of one limit, for x-ratelimit headers. Limit 0 means that
// no limit of this kind applies.
type Figure struct {
	Limit     int64
	Remaining int64         // after this request when it was admitted; never negative
	Reset     time.Duration // until the window is empty if nothing else comes
}

// Result is the answer to Reserve.
type Result struct {
	OK bool
	// Limit is the one that refused; nil when OK.
	Limit *plan.Limit
	// RetryAfter is when to try again after a refusal. See Ledger.Reserve.
	RetryAfter time.Duration
	// Impossible says that the request alone is larger than the limit: trying
	// again never helps.
	Impossible bool
	// The tightest limits of each kind.
	Requests, Tokens Figure
	// Held says that something is held under the request's id, until Settle or
	// Release.
	Held bool
}

// Ledger counts. It is safe for concurrent use.
type Ledger struct{ now func() time.Time }

// New makes an empty ledger; now is its clock.
func New(now func() time.Time) *Ledger { return &Ledger{now: now} }

// Reserve admits r under all limits that apply to it, or under none.
func (l *Ledger) Reserve(limits []*plan.Limit, r Request) Result { return Result{OK: true} }

// Settle replaces what is held under id by what was used. Settling twice, or an
// id that is not known, has no effect.
func (l *Ledger) Settle(id string, used ai.Usage) {}

// Release gives back all that is held under id, the request itself included.
func (l *Ledger) Release(id string) {}

// Restore counts r, without checking, as it was reserved before a restart.
func (l *Ledger) Restore(limits []*plan.Limit, r Request, used *ai.Usage, at time.Time) {}

// Held is the number of reservations that are open.
func (l *Ledger) Held() int { return 0 }
