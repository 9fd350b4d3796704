package adapter

import (
	"slices"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/ai"
)

// begunStream is a stream that has begun, of a pool that may be silent for a second.
func (w *world) begunStream(idle time.Duration) uint32 {
	target := poolA
	target.StreamIdleMillis = idle.Milliseconds()
	w.give(target, requestOf(true, false))
	id := w.send("/v1/chat/completions", 1000)
	w.CallOnResponseHeaders(id, events("200"), false)
	w.CallOnResponseBody(id, []byte(evRole), false)
	w.CallOnResponseBody(id, []byte(evHello), false)
	return id
}

func TestSilentStreamIsCut(t *testing.T) {
	clock := standing()
	w := newWorld(t, func() time.Time { return clock })
	tick := func(n int) {
		for range n {
			clock = clock.Add(idleTick * time.Millisecond)
			w.Tick()
		}
	}
	lively, silent, whole := w.begunStream(time.Second), w.begunStream(time.Second), w.begunStream(time.Second)
	free := w.begunStream(0)
	if w.GetTickPeriod() != idleTick {
		t.Errorf("the tick is %d ms", w.GetTickPeriod())
	}
	w.CallOnResponseBody(whole, []byte(evFinish+evDone), true)
	for range 8 {
		tick(3) // 750 ms
		w.CallOnResponseBody(lively, []byte(evPing), false)
	}
	cut := func(id uint32) bool { return w.GetSentLocalResponse(id) != nil }
	if cut(lively) || cut(whole) || cut(free) {
		t.Errorf("cut: a lively stream %v, one that ended %v, one without a limit %v", cut(lively), cut(whole), cut(free))
	}
	if !cut(silent) {
		t.Error("a silent stream was not cut")
	}
	if logs := w.GetErrorLogs(); !slices.Contains(logs, "attempt refused: "+errIdle.Error()) {
		t.Errorf("the log says %q", logs)
	}
	tick(6)
	if !cut(lively) {
		t.Error("a stream that fell silent was not cut")
	}
	if w.GetTickPeriod() != 0 {
		t.Error("it ticks with nothing to watch")
	}
	if u := w.state(ai.StateUsage); u == "" {
		t.Error("what was used is not known")
	}
}

// The wait for the first content is bounded elsewhere, and a whole answer may be silent
// until it is ready.
func TestOnlyStreamsThatBeganAreWatched(t *testing.T) {
	w := newWorld(t, standing)
	target := poolA
	target.StreamIdleMillis = 1000
	w.give(target, requestOf(true, false))
	id := w.send("/v1/chat/completions", 1000)
	w.CallOnResponseHeaders(id, events("200"), false)
	w.CallOnResponseBody(id, []byte(evRole), false)
	w.give(target, requestOf(false, false))
	id = w.send("/v1/chat/completions", 1000)
	w.CallOnResponseHeaders(id, [][2]string{{":status", "200"}, {"content-type", "application/json"}}, false)
	w.CallOnResponseBody(id, []byte(`{"choices":[`), false)
	if w.GetTickPeriod() != 0 {
		t.Errorf("it ticks every %d ms", w.GetTickPeriod())
	}
}
