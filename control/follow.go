package control

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproxy/weir/internal/plan"
)

const (
	// pollInterval is how often the store is asked for its revision.
	pollInterval = 250 * time.Millisecond
	// pollTimeout bounds one question, and readTimeout reading what changed: it may be
	// a million keys that another process has imported.
	pollTimeout = 2 * time.Second
	readTimeout = 2 * time.Minute
	// unreadyAfter is for how long the store may fail until this process says that it
	// is not ready: a change made elsewhere may be missed from then on.
	unreadyAfter = 2 * time.Second
	// forgetAfter is when a secret that was rotated out is forgotten: until then a
	// request with it is told apart from one with a key that never was.
	forgetAfter = 30 * 24 * time.Hour
	// putAtOnce bounds the memory of the first look at a large store.
	putAtOnce = 1 << 16
)

// Follower keeps a ring as the store is: changes of this process at once, those of
// others with the next poll.
type Follower struct {
	// Now is the time by which old secrets are forgotten. Default: time.Now
	Now   func() time.Time
	store Store
	ring  *plan.Ring
	log   *slog.Logger

	syncing  sync.Mutex
	revision atomic.Int64 // written under syncing

	mu       sync.Mutex
	lastGood time.Time
	failure  error // of the last look; nil when it was good
	failures prometheus.Counter
	census   *prometheus.Desc
	at       *prometheus.Desc
}

// NewFollower makes a follower; Sync fills the ring.
func NewFollower(store Store, ring *plan.Ring, log *slog.Logger) *Follower {
	return &Follower{
		Now: time.Now, store: store, ring: ring, log: log,
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "weir_control_store_failures_total", Help: "Looks at the control store that failed.",
		}),
		census: prometheus.NewDesc("weir_keys", "Keys of the control store, by what becomes of a request with one.", []string{"state"}, nil),
		at:     prometheus.NewDesc("weir_key_store_revision", "Revision of the control store that is in force here.", nil, nil),
	}
}

// Describe and Collect make a follower a prometheus.Collector.
func (f *Follower) Describe(c chan<- *prometheus.Desc) {
	f.failures.Describe(c)
	c <- f.census
	c <- f.at
}

// Collect counts the keys.
func (f *Follower) Collect(c chan<- prometheus.Metric) {
	f.failures.Collect(c)
	for state, n := range f.ring.Census(time.Now()) {
		c <- prometheus.MustNewConstMetric(f.census, prometheus.GaugeValue, float64(n), state)
	}
	c <- prometheus.MustNewConstMetric(f.at, prometheus.GaugeValue, float64(f.Revision()))
}

// Revision is that of the store that the ring shows.
func (f *Follower) Revision() Revision { return Revision(f.revision.Load()) }

// Sync brings the ring to the store's present state.
func (f *Follower) Sync(ctx context.Context) error { return f.sync(ctx, ctx) }

// sync asks whether something changed within one context, and for what within another.
func (f *Follower) sync(ask, read context.Context) error {
	f.syncing.Lock()
	defer f.syncing.Unlock()
	now, err := f.store.Revision(ask)
	was := f.Revision()
	if err == nil && now < was {
		err = fmt.Errorf("the store is at revision %d, and was at %d: an older copy took its place", now, was)
	}
	if err == nil && now > was {
		err = f.take(read)
	}
	return err
}

func (f *Follower) take(ctx context.Context) error {
	var list []plan.StoredKey
	forget := f.Now().Add(-forgetAfter)
	reached, err := f.store.Changes(ctx, f.Revision(), func(k *Key, o *Override) error {
		if k != nil {
			list = stored(list, k, forget)
		} else {
			list = append(list, plan.StoredKey{Hash: o.Hash, Name: o.Name, State: o.State, Remove: o.State == plan.StateActive})
		}
		if len(list) >= putAtOnce {
			f.ring.Put(list)
			list = list[:0]
		}
		return nil
	})
	// What was read is true even if the rest could not be.
	f.ring.Put(list)
	if err == nil {
		f.revision.Store(int64(reached))
	}
	return err
}

// stored adds the secrets of a key, as the ring wants them.
func stored(list []plan.StoredKey, k *Key, forget time.Time) []plan.StoredKey {
	for i, s := range k.Secrets {
		expires := sooner(k.Expires, s.Expires)
		list = append(list, plan.StoredKey{
			Hash: s.Hash, Name: k.Name, State: k.State, Owner: &k.Owner, Expires: expires,
			Superseded: i > 0, Remove: i > 0 && !expires.IsZero() && expires.Before(forget),
		})
	}
	return list
}

// sooner is the earlier of two times, of which zero is never.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// Run polls until ctx ends. A store that fails is asked again: what is in force
// stays in force, and Ready tells.
func (f *Follower) Run(ctx context.Context) error {
	f.note(nil)
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err := f.poll(ctx)
		if ctx.Err() == nil {
			f.note(err)
		}
	}
}

func (f *Follower) poll(ctx context.Context) error {
	ask, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	read, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	return f.sync(ask, read)
}

func (f *Follower) note(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		if f.failure != nil {
			f.log.Info("control store: it can be read again")
		}
		f.failure, f.lastGood = nil, time.Now()
		return
	}
	f.failures.Inc()
	if f.failure == nil {
		f.log.Error("control store: it cannot be read; keys are as they were, and changes made elsewhere are missed", "err", err)
	}
	f.failure = err
}

// Ready is nil while the store can be read, or was a moment ago.
func (f *Follower) Ready() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	since := time.Since(f.lastGood)
	switch {
	case since < unreadyAfter || f.lastGood.IsZero(): // it does not run yet
		return nil
	case f.failure == nil:
		return fmt.Errorf("the control store is being read for %s", since.Round(time.Second))
	}
	return fmt.Errorf("the control store cannot be read for %s: %w", since.Round(time.Second), f.failure)
}

// hashCheckText is what is hashed to tell one secret of key hashes from another. It
// is no key: a key holds no space.
const hashCheckText = "weir control store"

func hashCheck(p *plan.Plan) []byte {
	h := p.HashToken(hashCheckText)
	return h[:]
}

// CheckHashSecret holds that the plan's secret of key hashes is the one under which
// the store has its keys: under another none of them would open, without a word.
func CheckHashSecret(ctx context.Context, s Store, p *plan.Plan) error {
	was, err := s.HashCheck(ctx)
	if err == nil && len(was) > 0 && !bytes.Equal(was, hashCheck(p)) {
		err = ErrHashSecret
	}
	return err
}
