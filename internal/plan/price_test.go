package plan

import (
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/ai"
)

func TestPriceAt(t *testing.T) {
	day := func(d int) time.Time { return time.Date(2026, 7, d, 0, 0, 0, 0, time.UTC) }
	pool := Pool{Prices: []PricePeriod{{Price: ai.Price{Input: 1}}, {From: day(1), Price: ai.Price{Input: 2}}, {From: day(9), Price: ai.Price{Input: 3}}}}
	for _, tc := range []struct {
		at   time.Time
		want ai.NanoUSD
	}{
		{time.Time{}, 1},
		{day(1).Add(-time.Nanosecond), 1},
		{day(1), 2},
		{day(1).In(time.FixedZone("", 8*3600)), 2},
		{day(9).Add(-1), 2},
		{day(9), 3},
		{day(9).AddDate(100, 0, 0), 3},
	} {
		if got := pool.PriceAt(tc.at).Input; got != tc.want {
			t.Errorf("at %s: %d, want %d", tc.at, got, tc.want)
		}
	}
	if got := (&Pool{}).PriceAt(day(1)); got != (ai.Price{}) {
		t.Errorf("a pool without prices costs %+v", got)
	}
}
