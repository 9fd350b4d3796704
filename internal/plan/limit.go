package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/weirproxy/weir/internal/ai"
)

// Unit is what a limit counts.
type Unit string

// The units of limits. Money is counted in nano-dollars.
const (
	UnitRequests     Unit = "requests"
	UnitTokens       Unit = "tokens"
	UnitInputTokens  Unit = "input_tokens"
	UnitOutputTokens Unit = "output_tokens"
	UnitUSD          Unit = "usd"
	UnitConcurrency  Unit = "concurrency"
)

// Period is a calendar period; empty for a sliding window.
type Period string

// The periods. A week begins on Monday (ISO 8601).
const (
	Day   Period = "day"
	Week  Period = "week"
	Month Period = "month"
)

// Bounds of the calendar period that holds t, in the zone of t. Both are
// midnights; where a zone skips midnight, the first moment of the day.
func (p Period) Bounds(t time.Time) (start, end time.Time) {
	y, m, d := t.Date()
	switch p {
	case Month:
		return midnight(y, m, 1, t.Location()), midnight(y, m+1, 1, t.Location())
	case Week:
		d -= (int(t.Weekday()) + 6) % 7
		return midnight(y, m, d, t.Location()), midnight(y, m, d+7, t.Location())
	}
	return midnight(y, m, d, t.Location()), midnight(y, m, d+1, t.Location())
}

// midnight is the first moment of a day. Where clocks are set forward at
// midnight, time.Date may answer the hour before it, which is of the day before.
func midnight(y int, m time.Month, d int, zone *time.Location) time.Time {
	t := time.Date(y, m, d, 0, 0, 0, 0, zone)
	if want := time.Date(y, m, d, 12, 0, 0, 0, zone).Day(); t.Day() != want {
		_, until := t.ZoneBounds()
		return until
	}
	return t
}

// Breach is what happens to a request for which a limit has no room.
type Breach string

// What a breach does; the zero value refuses.
const (
	BreachRefuse    Breach = ""
	BreachDowngrade Breach = "downgrade" // go to other, cheaper pools, if the limit has room for that
	BreachQueue     Breach = "queue"     // wait for a short while
	BreachReport    Breach = "report"    // let it through and say so: the limit counts and does not bind
)

// Limit is a ceiling over a sliding window, over a calendar period, or, for
// concurrency, at any moment.
type Limit struct {
	Name string
	// Basis tells what is counted, as a short hash of all but amounts and what a
	// breach does: a limit that counts other requests is another one, though it has
	// the same name.
	Basis  string
	Unit   Unit
	Amount int64         // nano-dollars for usd
	Window time.Duration // of a sliding window; 0 otherwise
	Period Period        // of a calendar one; empty otherwise
	Zone   *time.Location
	// What has a count of its own.
	PerOrganisation, PerTeam, PerApplication, PerKey, PerUser, PerModel, PerPool bool
	// Which requests it applies to; nil is all.
	Organisations, Teams, Applications, Keys, Models map[string]bool
	// Which pools' use it counts; nil is all.
	Pools map[string]bool

	OnBreach    Breach
	DowngradeTo []*Pool       // in order
	QueueWait   time.Duration // the longest
	// Breaker says that a budget that was used up stays closed until its period
	// ends or somebody resets it, whatever is given back.
	Breaker bool
	// AlertAt are percentages of the amount, ascending, at which somebody is told.
	AlertAt []int
}

// SetBasis sets the basis from the other fields. Only the compiler calls it.
func (l *Limit) SetBasis() {
	// Maps are printed in the order of their keys.
	sum := sha256.Sum256(fmt.Append(nil, l.Unit, l.Window, l.Period, l.Zone, l.PerOrganisation, l.PerTeam, l.PerApplication, l.PerKey, l.PerUser,
		l.PerModel, l.PerPool, l.Organisations, l.Teams, l.Applications, l.Keys, l.Models, l.Pools))
	l.Basis = hex.EncodeToString(sum[:4])
}

// Ident knows the limit by what it counts: its counts go on while it stays the same.
func (l *Limit) Ident() string {
	if l.Basis == "" {
		return l.Name
	}
	return l.Name + "#" + l.Basis
}

// Applies tells whether the limit counts requests of this principal for this model.
func (l *Limit) Applies(p *ai.Principal, model string) bool {
	return in(l.Organisations, p.Organisation) && in(l.Teams, p.Team) && in(l.Applications, p.Application) && in(l.Keys, p.Key) && in(l.Models, model)
}

// Counts tells whether the limit counts what is used of the pool.
func (l *Limit) Counts(pool string) bool { return in(l.Pools, pool) }

// Apart tells whether the limit has a count of its own for each value of a dimension:
// organisation, team, application, key, user, model or pool.
func (l *Limit) Apart(dimension string) bool {
	switch dimension {
	case "organisation":
		return l.PerOrganisation
	case "team":
		return l.PerTeam
	case "application":
		return l.PerApplication
	case "key":
		return l.PerKey
	case "user":
		return l.PerUser
	case "model":
		return l.PerModel
	case "pool":
		return l.PerPool
	}
	return false
}

// OfPools says that the limit counts some pools and not others, or each apart: a
// pool for which it has no room drops out of a request's targets.
func (l *Limit) OfPools() bool { return l.PerPool || l.Pools != nil }

// Capacity says that the limit is what pools can work on at a time, whoever calls.
func (l *Limit) Capacity() bool {
	apart := l.PerOrganisation || l.PerTeam || l.PerApplication || l.PerKey || l.PerUser || l.PerModel
	some := l.Organisations != nil || l.Teams != nil || l.Applications != nil || l.Keys != nil
	return l.Unit == UnitConcurrency && l.OfPools() && !apart && !some
}

// Span names the time over which the limit counts, as "1m0s", "month" or "".
func (l *Limit) Span() string {
	switch {
	case l.Period != "":
		return string(l.Period)
	case l.Window > 0:
		return l.Window.String()
	}
	return ""
}

func in(set map[string]bool, name string) bool { return set == nil || set[name] }
