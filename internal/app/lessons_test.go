package app

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
)

func TestLessons(t *testing.T) {
	const counted, estimated, reported = usagev1.Certainty_CERTAINTY_COUNTED, usagev1.Certainty_CERTAINTY_ESTIMATED, usagev1.Certainty_CERTAINTY_REPORTED
	reg := prometheus.NewRegistry()
	var log bytes.Buffer
	l := newLessons(reg, slog.New(slog.NewTextHandler(&log, nil)))
	event := func(pool string, told int64, how, end usagev1.Certainty, tokens int64) *usagev1.Event {
		return &usagev1.Event{
			Pool: pool, InputCertainty: end, Tokens: &usagev1.Tokens{Input: tokens - tokens/4, CachedInput: tokens / 4},
			Decision: &usagev1.Decision{Id: "d", Targets: []string{"first", "second"}, InputTokens: told, InputCertainty: how},
		}
	}
	l.settled(event("first", 100, counted, reported, 100))
	l.settled(event("second", 100, counted, reported, 900)) // told of the first
	l.settled(event("first", 100, counted, estimated, 900)) // nobody reported it
	l.settled(&usagev1.Event{Pool: "first", InputCertainty: reported, Decision: &usagev1.Decision{}})
	if l.Doubts("first") || log.Len() > 0 {
		t.Fatalf("doubted without a reason: %s", log.String())
	}
	for range 2 {
		l.settled(event("first", 100, counted, reported, 104))
	}
	if !l.Doubts("first") || strings.Count(log.String(), "level=WARN") != 1 || !strings.Contains(log.String(), "pool=first counted=100 reported=104") {
		t.Errorf("doubts %t: %s", l.Doubts("first"), log.String())
	}
	for range 100 {
		l.settled(event("first", 100, estimated, reported, 150))
	}
	if f := l.Factor("first"); f < 1.4 {
		t.Errorf("factor %v", f)
	}
	const want = `
# HELP weir_tokens_doubted 1 when a pool's backend reported more input tokens than weir had counted exactly.
# TYPE weir_tokens_doubted gauge
weir_tokens_doubted{pool="first"} 1
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "weir_tokens_doubted"); err != nil {
		t.Error(err)
	}
	if n := testutil.CollectAndCount(l.ratio); n != 2 {
		t.Errorf("%d series of ratios, want one for counted and one for estimated", n)
	}
}
