package adapter

import (
	"errors"
	"fmt"
	"time"

	"github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm"
)

// idleTick is how often a worker looks for streams that are silent, in milliseconds: by
// so much may one be cut late.
const idleTick = 250

// errIdle says that the backend sent nothing of a stream that had begun for as long as
// its pool allows.
var errIdle = errors.New("idle: the backend's stream was silent for too long")

// watch is of the streams of one worker whose pools bound their silence. A stream that
// ends is found to have ended when the next tick comes: no call of its own tells.
type watch struct {
	ticking bool
	streams map[*attempt]time.Time // since when nothing was seen to come
}

// follow begins to watch a stream.
func (w *watch) follow(a *attempt, now time.Time) {
	if w.streams == nil {
		w.streams = map[*attempt]time.Time{}
	}
	w.streams[a] = now
	w.tick(true)
}

// tick is on only while there is something to watch.
func (w *watch) tick(on bool) {
	if w.ticking == on {
		return
	}
	var period uint32
	if on {
		period = idleTick
	}
	if err := proxywasm.SetTickPeriodMilliSeconds(period); err != nil {
		proxywasm.LogErrorf("set the tick: %v", err) // tried again with the next stream
		return
	}
	w.ticking = on
}

// OnTick cuts the streams that are silent for too long. It recovers: a panic costs the
// watch of the others until they say something, and not the worker.
func (p *plugin) OnTick() {
	defer func() {
		if r := recover(); r != nil {
			proxywasm.LogErrorf("watch given up: panic: %v", r)
		}
	}()
	now := p.now()
	for a, since := range p.watch.streams {
		switch {
		case a.ended:
			delete(p.watch.streams, a)
		case a.heard: // no clock is read for each piece
			a.heard = false
			p.watch.streams[a] = now
		case now.Sub(since) >= a.target.idle():
			delete(p.watch.streams, a)
			p.cutIdle(a)
		}
	}
	p.watch.tick(len(p.watch.streams) > 0)
}

// cutIdle ends a response: as an answer after the headers makes the host do.
func (p *plugin) cutIdle(a *attempt) {
	if err := proxywasm.SetEffectiveContext(a.id); err != nil {
		return // it has gone, its client most often
	}
	a.refuse(errIdle)
	if err := proxywasm.SetEffectiveContext(p.id); err != nil {
		panic(fmt.Sprintf("back to the plugin's own context: %v", err))
	}
}
