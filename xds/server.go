// Package xds serves Envoy its configuration by ADS, in both protocols (delta
// and state of the world), to any number of Envoys of any node id. What it
// serves is built by xds/build; it decides when: a retired cluster stays for a
// grace period, and what an Envoy refuses is taken back.
package xds

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"

	"github.com/weirproxy/weir/xds/build"
)

// Options has a usable zero value.
type Options struct {
	Log *slog.Logger
	// Grace is how long a retired cluster, endpoint list or secret is still
	// served: requests decided under the old plan may use it. Default: 30 s
	Grace time.Duration
	// Now and After are the clock. Default: the real one
	Now   func() time.Time
	After func(time.Duration, func()) (stop func() bool)
	// OnNACK is told of each refusal, for metrics. It must not call the server.
	OnNACK func(Rejection)
}

// Rejection is an Envoy's refusal of one type of one published version.
type Rejection struct {
	At      time.Time `json:"at"`
	Node    string    `json:"node"`
	Type    string    `json:"type"`    // Cluster, Listener, …
	Version string    `json:"version"` // of the whole publication
	Detail  string    `json:"detail"`  // what Envoy says, at most 1 KiB
}

// RejectedError is returned for a version that an Envoy has refused.
type RejectedError struct{ Rejection }

func (e *RejectedError) Error() string {
	return fmt.Sprintf("xds: version %s: envoy %q refused its %s resources: %s", e.Version, e.Node, e.Type, e.Detail)
}

// Server holds what is published and who has accepted it.
type Server struct {
	opts  Options
	cache cachev3.SnapshotCache

	mu        sync.Mutex
	current   *composed // nil before the first Publish
	published time.Time // when current was
	history   []*set    // oldest first; the last is current.set
	kept      []retired
	again     [len(kinds)]int
	refused   map[string]Rejection // by type and version of a set's type
	last      *Rejection
	nodes     map[string]*node
	streams   map[streamKey]*stream
	sent      map[string]*composed // by type and version, for what history holds
	changed   chan struct{}        // closed and made anew when anything changes
}

// node is all streams of one node id.
type node struct {
	id      string
	streams map[streamKey]*stream
	// own: its listeners are its operator's, and it need not have those of the plan.
	own     bool
	serving *composed // what its snapshot in the cache is
	good    *composed // the last that it accepted in full
	held    *Rejection
}

const (
	defaultGrace = 30 * time.Second
	maxHistory   = 16
	maxDetail    = 1 << 10 // bytes
)

// NewServer makes a server that publishes nothing yet: Envoys that ask wait.
func NewServer(o Options) *Server {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Grace <= 0 {
		o.Grace = defaultGrace
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.After == nil {
		o.After = func(d time.Duration, f func()) func() bool { return time.AfterFunc(d, f).Stop }
	}
	return &Server{
		opts: o,
		// Not the library's ADS mode: it drops a watch on endpoints, without an
		// answer, when the snapshot has one that was not asked for yet.
		cache:   cachev3.NewSnapshotCache(false, cachev3.IDHash{}, nil),
		refused: make(map[string]Rejection),
		nodes:   make(map[string]*node),
		streams: make(map[streamKey]*stream),
		sent:    make(map[string]*composed),
		changed: make(chan struct{}),
	}
}

// Publish sends the resources to every Envoy, now and when it connects, and
// returns their version. Resources that were published before and are absent now
// are still served for the grace period. A version that was refused before is
// not sent again: *RejectedError.
func (s *Server) Publish(r *build.Resources) (string, error) {
	next, err := newSet(r)
	if err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range kinds {
		if rejection, bad := s.refused[typeVersion(i, next.versions[i])]; bad {
			return next.version, &RejectedError{rejection}
		}
	}
	if s.current != nil && s.current.set.version == next.version {
		return next.version, nil
	}
	if s.current != nil {
		s.retire(s.current.set, next)
	}
	s.remember(next)
	return next.version, s.serve(next)
}

// retire keeps what next no longer has: see keep.
func (s *Server) retire(prev, next *set) {
	until := s.opts.Now().Add(s.opts.Grace)
	s.kept = slices.DeleteFunc(s.kept, func(r retired) bool {
		_, back := next.items[r.kind][r.name]
		return back
	})
	before := len(s.kept)
	for i, k := range kinds {
		if k.keeps == keepNone || k.keeps == keepAcked && !prev.acked[i] {
			continue
		}
		for name, item := range prev.items[i] {
			if _, stays := next.items[i][name]; !stays {
				s.kept = append(s.kept, retired{kind: i, name: name, item: item, from: prev, until: until})
			}
		}
	}
	if len(s.kept) > before {
		s.opts.After(s.opts.Grace, s.expire)
	}
}

// expire stops serving what was kept long enough.
func (s *Server) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, before := s.opts.Now(), len(s.kept)
	s.kept = slices.DeleteFunc(s.kept, func(r retired) bool { return !r.until.After(now) })
	if len(s.kept) == before || s.current == nil {
		return
	}
	if err := s.serve(s.current.set); err != nil {
		s.opts.Log.Error("xds: retired resources are still served", "err", err)
	}
}

// remember keeps the set for a later refusal to fall back to. The last one that
// was accepted in full stays, however many follow.
func (s *Server) remember(next *set) {
	s.history = append(s.history, next)
	if len(s.history) <= maxHistory {
		return
	}
	good := -1
	for i, c := range s.history {
		if c.accepted() {
			good = i
		}
	}
	drop := 0
	if good == 0 {
		drop = 1
	}
	s.forget(s.history[drop])
}

// forget drops a set. What it still has under way is settled without it.
func (s *Server) forget(gone *set) {
	s.history = slices.DeleteFunc(s.history, func(c *set) bool { return c == gone })
	maps.DeleteFunc(s.sent, func(_ string, c *composed) bool { return c.set == gone })
}

func (s *set) accepted() bool {
	return s.rejected == nil && !slices.Contains(s.acked[:], false)
}

// serve makes the set the current one, for all nodes.
func (s *Server) serve(next *set) error {
	c, err := compose(next, s.kept, s.again)
	if err != nil {
		return err
	}
	s.current, s.published = c, s.opts.Now()
	for i, k := range kinds {
		s.sent[typeVersion(i, c.snap.GetVersion(k.url))] = c
	}
	defer s.notify()
	var errs []error
	for _, n := range s.nodes {
		n.held = nil
		errs = append(errs, s.give(n, c))
	}
	return errors.Join(errs...)
}

// give sets what a node is served.
func (s *Server) give(n *node, c *composed) error {
	n.serving = c
	// The context bounds nothing: each stream's channel has room for one answer
	// a type, and no type has more than one watch.
	if err := s.cache.SetSnapshot(context.Background(), n.id, c.snap); err != nil {
		return fmt.Errorf("xds: node %q: %w", n.id, err)
	}
	return nil
}

func (s *Server) notify() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func typeVersion(kind int, version string) string { return kinds[kind].url + " " + version }
