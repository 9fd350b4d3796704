package xds

import (
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/weirproxy/weir/xds/build"
)

// streamKey tells streams apart: the library numbers the two protocols each on
// its own.
type streamKey struct {
	delta bool
	id    int64
}

// stream is one Envoy's connection, and what it has accepted. The server's lock
// guards it.
type stream struct {
	node  *node
	types [len(kinds)]subscription
}

// subscription is one type on one stream.
type subscription struct {
	asked   bool
	pending map[string]update // sent, not answered: by nonce
	// State of the world: the version accepted, and the names asked for with it
	// (nil: all).
	version string
	names   map[string]bool
	// Delta: the version accepted of each resource.
	resources map[string]string
	at        time.Time // when the last response was accepted
}

// update is one response.
type update struct {
	of      *composed
	version string
	names   map[string]bool   // state of the world
	changed map[string]string // delta
	removed []string          // delta
}

func (s *subscription) sent(nonce string, u update) {
	if s.pending == nil {
		s.pending = make(map[string]update)
	}
	s.pending[nonce] = u
}

// answered takes the response out that a request answers; false for a request
// that answers none (a first one, a change of the names asked for).
func (s *subscription) answered(nonce string) (update, bool) {
	u, ok := s.pending[nonce]
	delete(s.pending, nonce)
	return u, ok
}

func (s *subscription) accept(u update, delta bool, now time.Time) {
	s.version, s.at = u.version, now
	if !delta {
		s.names = u.names
		return
	}
	if s.resources == nil {
		s.resources = make(map[string]string)
	}
	for name, version := range u.changed {
		s.resources[name] = version
	}
	for _, name := range u.removed {
		delete(s.resources, name)
	}
}

// has tells that the stream has accepted everything that the set holds of a
// type and that its Envoy needs: one whose listeners are its operator's asks for no
// listener, and for a listener's secret only if it likes.
func (s *stream) has(i int, c *composed, delta bool) bool {
	sub, want := &s.types[i], c.set.items[i]
	if s.node.own {
		switch kinds[i].url {
		case resourcev3.ListenerType:
			return true
		case resourcev3.SecretType:
			want = sub.without(want, delta, build.ForListener)
		}
	}
	return sub.has(kinds[i], want, c.snap, delta)
}

// without leaves out the resources that are optional and were not asked for.
func (s *subscription) without(want items, delta bool, optional func(name string) bool) items {
	need := make(items, len(want))
	for name, item := range want {
		asked := s.names[name]
		if delta {
			_, asked = s.resources[name]
		}
		if asked || !optional(name) {
			need[name] = item
		}
	}
	return need
}

// has tells that everything wanted of a type has been accepted. What is retired need not be there: an Envoy that never saw the cluster
// never asks for its endpoints.
func (s *subscription) has(k kind, want items, snap *cachev3.Snapshot, delta bool) bool {
	if !s.asked {
		return len(want) == 0 && !k.wildcard()
	}
	if delta {
		return s.hasEach(want, snap.GetVersionMap(k.url), k.wildcard())
	}
	if s.version != snap.GetVersion(k.url) {
		return len(want) == 0 && !k.wildcard()
	}
	for name := range want {
		if s.names != nil && !s.names[name] {
			return false
		}
	}
	return true
}

// hasEach compares resource by resource; of a type that is asked for as a whole
// there must be nothing else.
func (s *subscription) hasEach(want items, versions map[string]string, wildcard bool) bool {
	for name := range want {
		if s.resources[name] != versions[name] {
			return false
		}
	}
	for name := range s.resources {
		if _, served := versions[name]; !served && wildcard {
			return false
		}
	}
	return true
}

// wildcard types are asked for as a whole.
func (k kind) wildcard() bool { return k.url == kinds[0].url || k.url == kinds[3].url }

func deltaUpdate(of *composed, r *discoveryv3.DeltaDiscoveryResponse) update {
	u := update{of: of, version: r.GetSystemVersionInfo(), removed: r.GetRemovedResources(), changed: make(map[string]string)}
	for _, res := range r.GetResources() {
		u.changed[res.GetName()] = res.GetVersion()
	}
	return u
}

func sotwUpdate(of *composed, req *discoveryv3.DiscoveryRequest, version string) update {
	u := update{of: of, version: version}
	if names := req.GetResourceNames(); len(names) > 0 {
		u.names = make(map[string]bool, len(names))
		for _, name := range names {
			u.names[name] = true
		}
	}
	return u
}
