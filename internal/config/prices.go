package config

import (
	"errors"
	"math"
	"slices"
	"time"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	configv1 "github.com/weirproxy/weir/proto/weir/config/v1"
)

// What abandoned_attempts may say.
const (
	billed = "billed"
	free   = "free"
)

// prices compiles what a pool costs, and from when.
func (c *compilation) prices(path string, p *configv1.Pool, pool *plan.Pool) {
	now, priced := c.price(path+".price", p.Price)
	pool.Prices = []plan.PricePeriod{{Price: now}}
	pool.Priced = priced
	switch {
	case priced:
	case len(p.Prices) > 0:
		c.fault(path+".price", "what does the pool cost until prices[0].from? a price, or `free: true`")
	case pool.Placement == ai.Public:
		c.warn(path+".price", "no price: calls of this public pool count as free; say `price: {free: true}` if they are")
	}
	for i, period := range p.Prices {
		c.period(index(path+".prices", i), period, pool)
	}
}

func (c *compilation) period(path string, p *configv1.PricePeriod, pool *plan.Pool) {
	if p.From == "" || p.Price == nil {
		return // the schema's rules reported it
	}
	from, err := parseDate(p.From)
	if err != nil {
		c.fault(path+".from", "%s", err)
		return
	}
	if last := pool.Prices[len(pool.Prices)-1].From; !from.After(last) {
		c.fault(path+".from", "not later than the one before: prices stand in the order of their dates")
	}
	price, priced := c.price(path+".price", p.Price)
	if !priced {
		c.fault(path+".price", "says nothing of what the pool costs; say `free: true` if it is nothing")
	}
	pool.Prices = append(pool.Prices, plan.PricePeriod{From: from, Price: price})
}

var errDate = errors.New(`want a date as "2026-07-01" (UTC), or a time as "2026-07-01T00:00:00+08:00"`)

// parseDate reads a date, which begins at midnight UTC, or a time of RFC 3339.
func parseDate(text string) (time.Time, error) {
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, errDate
}

// class is one class of a price: what the file says, and what stands for it when
// the file says nothing.
type class struct {
	name    string
	usd     *float64
	nearest *ai.NanoUSD
	price   *ai.NanoUSD
}

// price converts US dollars to nano-dollars and puts the nearest class's price
// where a class has none. It tells whether the price says anything.
func (c *compilation) price(path string, p *configv1.Price) (price ai.Price, priced bool) {
	if p == nil {
		return ai.Price{}, false
	}
	input, output := p.Input, p.Output
	if input == nil {
		input = output
	}
	if output == nil {
		output = input
	}
	for _, class := range []class{
		{"input", input, nil, &price.Input},
		{"output", output, nil, &price.Output},
		{"cached_input", p.CachedInput, &price.Input, &price.CachedInput},
		{"cache_write", p.CacheWrite, &price.Input, &price.CacheWrite},
		{"audio_input", p.AudioInput, &price.Input, &price.AudioInput},
		{"image_input", p.ImageInput, &price.Input, &price.ImageInput},
		{"reasoning", p.Reasoning, &price.Output, &price.Reasoning},
		{"audio_output", p.AudioOutput, &price.Output, &price.AudioOutput},
		{"image_output", p.ImageOutput, &price.Output, &price.ImageOutput},
		{"per_request", &p.PerRequest, nil, &price.Request},
	} {
		switch {
		case class.usd != nil:
			*class.price = c.nano(path+"."+class.name, *class.usd)
		case class.nearest != nil:
			*class.price = *class.nearest
		}
	}
	if p.Free && !price.Free() {
		c.fault(path+".free", "free, and a price beside it: which of them?")
	}
	if price.CachedInput > price.Input {
		c.warn(path+".cached_input", "cached input costs more than input")
	}
	return price, p.Free || !price.Free()
}

// pricesForBudgets demands a price of every public pool that a limit in money counts:
// it would hold back nothing there.
func (c *compilation) pricesForBudgets() {
	for i, p := range c.cfg.Pools {
		pool := c.pools[p.Name]
		if pool == nil || pool.Placement != ai.Public || pool.Priced {
			continue
		}
		for _, l := range c.out.Limits {
			if l.Unit == plan.UnitUSD && l.Counts(pool.Name) && c.routes(l, pool) {
				c.fault(index("pools", i)+".price", "no price, but limit %q counts what this public pool costs; say `price: {free: true}` if it is nothing", l.Name)
				break
			}
		}
	}
}

// costless reports limits in money that only count pools that cost nothing.
func (c *compilation) costless() {
	for i, l := range c.out.Limits {
		counted := false
		costs := slices.ContainsFunc(c.out.Pools, func(p *plan.Pool) bool {
			if !l.Counts(p.Name) || !c.routes(l, p) {
				return false
			}
			counted = true
			return slices.ContainsFunc(p.Prices, func(at plan.PricePeriod) bool { return at.Price.Bound(1e6, 1e6) > 0 })
		})
		if l.Unit == plan.UnitUSD && counted && !costs {
			c.fault(index("limits", i), "holds nothing back: no pool that it counts has a price")
		}
	}
}

// routes tells whether a request for a model that the limit counts may go to the pool.
func (c *compilation) routes(l *plan.Limit, pool *plan.Pool) bool {
	return slices.ContainsFunc(c.out.ModelList, func(m *plan.Model) bool {
		return in(l.Models, m.Name) && slices.Contains(c.reachable(m), pool)
	})
}

// nano is an amount in nano-dollars, rounded. What is not in the range that the
// schema demands, which reports it, is nothing.
func (c *compilation) nano(path string, usd float64) ai.NanoUSD {
	if !(usd > 0 && usd <= 1e6) {
		return 0
	}
	n := ai.NanoUSD(math.Round(usd * 1e9))
	if n == 0 {
		c.fault(path, "less than a billionth of a dollar: it would be nothing")
	}
	return n
}
