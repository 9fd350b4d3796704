package usage

import (
	"github.com/weirproxy/weir/internal/ai"
	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
)

// terms is what the decision recorded of a pool; nil where it did not allow it. What
// an open request costs, a new configuration does not change.
func terms(d *usagev1.Decision, pool string) *usagev1.TargetPrice {
	for _, p := range d.GetPrices() {
		if p.GetPool() == pool {
			return p
		}
	}
	return nil
}

// allowed is the most that an attempt at any target of the decision may use: input
// as weir knows it, and all output that it allowed. Decisions of before that was
// recorded tell of one answer.
func allowed(d *usagev1.Decision) (input, output int64) {
	input = min(max(d.GetInputTokens(), 0), maxTokens)
	output = max(d.GetAllowedOutputTokens(), d.GetReservedOutputTokens())
	if output == 0 {
		output = d.GetMaxOutputTokens()
	}
	return input, min(max(output, 0), maxTokens)
}

// abandonedFailures are the ways to end of an attempt that was sent and gave no
// answer. A connection that was refused carried nothing, and an answer that is an
// error costs nothing.
var abandonedFailures = map[string]bool{
	failTimeout: true, failFirstToken: true, failNoContent: true, failReset: true, failNoResponse: true, failClientGone: true,
}

// abandoned tells whether an attempt is charged though it gave no answer.
func abandoned(d *usagev1.Decision, a *usagev1.Attempt) bool {
	return abandonedFailures[a.GetFailure()] && a.GetStatus() < 400 && terms(d, a.GetPool()).GetBillsAbandoned()
}

// chargeAbandoned charges the attempts that are charged without an answer: each
// with the input and all the output that it was allowed. Of the last one the event
// may tell some tokens already, u for cost; it is charged the rest, unless it came
// to its end.
func chargeAbandoned(e *usagev1.Event, u ai.Usage, cost ai.NanoUSD, ended bool) {
	d := e.GetDecision()
	input, output := allowed(d)
	for i, a := range e.GetAttempts() {
		if !abandoned(d, a) {
			continue
		}
		rest := ai.Usage{Input: input, Output: output}
		bound := min(terms(d, a.GetPool()).Price().Bound(input, output), maxCost)
		if i == len(e.GetAttempts())-1 {
			if ended {
				continue
			}
			rest = ai.Usage{Input: max(0, input-u.TotalInput()), Output: max(0, output-u.Output)}
			bound = max(0, bound-cost)
		}
		if rest != (ai.Usage{}) || bound > 0 {
			charge(e, a, rest, bound)
		}
	}
}

// charge charges an attempt, and the event for it.
func charge(e *usagev1.Event, a *usagev1.Attempt, u ai.Usage, cost ai.NanoUSD) {
	a.Tokens, a.CostNanousd, a.Certainty = usagev1.TokensOf(u), int64(cost), usagev1.Certainty_CERTAINTY_ESTIMATED
	addAbandoned(e, u, cost)
}

func addAbandoned(e *usagev1.Event, u ai.Usage, cost ai.NanoUSD) {
	if e.Abandoned == nil {
		e.Abandoned = &usagev1.Abandoned{}
	}
	sum := e.Abandoned
	sum.Attempts++
	sum.Tokens = usagev1.TokensOf(sum.Tokens.Usage().Add(u))
	sum.CostNanousd += int64(cost)
	e.CostNanousd += int64(cost)
}

// worst is what an admitted request can have used whose end nobody reported: every
// target that bills abandoned attempts may have been one, and another one gave the
// answer. served is that other one, the dearest of those that do not bill them where
// there are some; rest are the ones that bill, without it.
func worst(d *usagev1.Decision, input, output int64) (served Share, rest []Share) {
	served.Usage = ai.Usage{Input: input, Output: output}
	at := -1
	for i, p := range d.GetPrices() {
		cost := min(p.Price().Bound(input, output), maxCost)
		if at >= 0 {
			was, bills := d.GetPrices()[at].GetBillsAbandoned(), p.GetBillsAbandoned()
			if bills && !was || bills == was && cost <= served.Cost {
				continue
			}
		}
		at, served.Pool, served.Cost = i, p.GetPool(), cost
	}
	for i, p := range d.GetPrices() {
		tries := max(p.GetTries(), 1)
		if i == at {
			tries-- // the one that gave the answer
		}
		for range tries {
			if !p.GetBillsAbandoned() {
				break
			}
			rest = append(rest, Share{p.GetPool(), served.Usage, min(p.Price().Bound(input, output), maxCost)})
		}
	}
	return served, rest
}

// Served is what an event says that the answer used.
func Served(e *usagev1.Event) ai.Usage { return e.GetTokens().Usage() }

// Used is what an event says was used: by the answer, and by the attempts that are
// charged though they gave none. It is what the ledger is settled by.
func Used(e *usagev1.Event) ai.Usage { return Served(e).Add(e.GetAbandoned().GetTokens().Usage()) }

// Share is what was used of one pool.
type Share struct {
	Pool  string
	Usage ai.Usage
	Cost  ai.NanoUSD
}

// UsedByPool is what an event says was used of each pool, each pool once: together
// Used, and the event's cost. Of an event whose end nobody reported it is an upper
// bound of the whole; which of the pools it fell to is not known.
func UsedByPool(e *usagev1.Event) []Share {
	var list []Share
	add := func(s Share) {
		if s.Usage == (ai.Usage{}) && s.Cost == 0 {
			return
		}
		for i := range list {
			if list[i].Pool == s.Pool {
				list[i].Usage = list[i].Usage.Add(s.Usage)
				list[i].Cost = list[i].Cost.Plus(s.Cost)
				return
			}
		}
		list = append(list, s)
	}
	if e.GetOutcome() == OutcomeUnknown {
		served, rest := worst(e.GetDecision(), Served(e).Input, Served(e).Output)
		add(served)
		for _, s := range rest {
			add(s)
		}
		return list
	}
	cost := ai.NanoUSD(e.GetCostNanousd() - e.GetAbandoned().GetCostNanousd())
	add(Share{Pool: servingPool(e), Usage: Served(e), Cost: cost})
	for _, a := range e.GetAttempts() {
		add(Share{Pool: a.GetPool(), Usage: a.GetTokens().Usage(), Cost: ai.NanoUSD(a.GetCostNanousd())})
	}
	return list
}

// servingPool is the pool that the event's own tokens fell to: that of the last
// attempt, be it one that gave an answer or broke off.
func servingPool(e *usagev1.Event) string {
	if n := len(e.GetAttempts()); n > 0 {
		return e.GetAttempts()[n-1].GetPool()
	}
	return e.GetPool()
}
