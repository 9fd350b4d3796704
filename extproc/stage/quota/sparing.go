package quota

import (
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/limit"
)

// sparing is the ledger as the stage uses it. A request with the id of a probe is
// judged by the same counts and takes nothing: the doctor, and who explains, must
// not use up what they look at.
type sparing struct{ Ledger }

// Reserve looks, and takes unless it is a probe that asks.
func (s sparing) Reserve(limits []*plan.Limit, r *limit.Request) limit.Result {
	if ai.IsProbeID(r.ID) {
		return s.Check(limits, r)
	}
	return s.Ledger.Reserve(limits, r)
}
