package app

import (
	"fmt"
	"sync"
	"time"
)

// maxUnkept is for how long the limits may not be kept before weir is not ready.
// They are counted all the same, but the journal grows until they are kept.
const maxUnkept = time.Minute

// keptCheck is the readiness of the limits: whether what they count can be kept.
type keptCheck struct {
	mu    sync.Mutex
	since time.Time // the first failure after which nothing was kept
	err   error     // of the last try; nil when it kept them
}

// note notes how a try to keep the limits ended.
func (k *keptCheck) note(err error, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err == nil {
		k.since = now
	}
	k.err = err
}

// ready is an error when the limits could not be kept for a minute, tries that
// hang after the first failure included.
func (k *keptCheck) ready() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err == nil {
		return nil
	}
	if unkept := time.Since(k.since); unkept >= maxUnkept {
		return fmt.Errorf("the limits have not been kept for %s: %w", unkept.Round(time.Second), k.err)
	}
	return nil
}
