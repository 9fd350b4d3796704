// Package limit is the in-process ledger: it reserves before a request leaves,
// settles after, and in no window lets a limit be passed. It knows no wire and
// keeps nothing on disk.
//
// What is promised. Take any window of a limit's length. The requests admitted in
// it, or the tokens that were used in it at any moment between admission and
// settlement, are at most the limit's amount, as long as no request uses more
// than it reserved. Two rules give this. A request counts from its admission on
// until one window later. Tokens count as reserved from admission until they are
// settled, however long the answer streams, and as used from then until one
// window later. Time is kept in slots of a sixtieth of the window, and a slot
// leaves when its end does, so that nothing leaves early and nothing stays longer
// than a sixtieth too long.
//
// A request that used more than it reserved is counted with what it used: the
// excess is a debt that refuses others until the window has passed it.
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
	Remaining int64 // after this request when it was admitted; never negative
	// Reset is until the window is empty if nothing else comes. While something
	// is reserved, it takes that to be settled now.
	Reset time.Duration
}

// Result is the answer to Reserve.
type Result struct {
	OK bool
	// Limit is the one that refused, and of several the one that refuses for
	// longest; nil when OK.
	Limit *plan.Limit
	// RetryAfter is when the request would be admitted, if nothing else came
	// before. Where it waits for reservations of other requests, whose end
	// nobody knows, it is a tenth of the window, at least a second.
	RetryAfter time.Duration
	// Impossible says that the request alone is larger than the limit: trying
	// again never helps, and RetryAfter is 0.
	Impossible bool
	// The tightest limits of each kind: requests, and tokens of any class.
	Requests, Tokens Figure
	// Held says that something is held under the request's id, until Settle or
	// Release.
	Held bool
}

// amount is what a request takes of a limit with this unit.
func amount(unit plan.Unit, input, output int64) int64 {
	switch unit {
	case plan.UnitRequests:
		return 1
	case plan.UnitInputTokens:
		return clamp(input)
	case plan.UnitOutputTokens:
		return clamp(output)
	default: // tokens; also an unknown unit, so that it is not free of charge
		return clamp(input) + clamp(output)
	}
}

// maxAmount is the most that one request counts, well above any limit: sums of
// it do not overflow.
const maxAmount = 1 << 42

func clamp(n int64) int64 { return min(max(n, 0), maxAmount) }
