package plan

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weirproxy/weir/internal/ai"
)

var noon = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// testPlan knows team core with application bot, and the roles user and staff.
func testPlan(ring *Ring) *Plan {
	p := &Plan{Keys: map[KeyHash]*Key{}, Stored: ring, Directory: Directory{
		Teams:        map[string][]string{"core": {"user"}},
		Applications: map[string]Application{"bot": {Team: "core", Roles: []string{"bots"}}},
	}, Roles: map[string]*Role{"user": {Name: "user"}, "staff": {Name: "staff"}, "bots": {Name: "bots"}}}
	p.SetHashSecret([]byte("a secret of tests"))
	if ring != nil {
		ring.Bind(p)
	}
	return p
}

func rolesOf(k *Key) (names []string) {
	for _, r := range k.Roles {
		names = append(names, r.Name)
	}
	return names
}

func put(p *Plan, token string, k StoredKey) {
	k.Hash = p.HashToken(token)
	p.Stored.Put([]StoredKey{k})
}

func TestStoredKeys(t *testing.T) {
	p := testPlan(NewRing())
	bot, core := &Owner{Application: "bot", Roles: []string{"staff"}}, &Owner{Team: "core"}
	put(p, "of-bot", StoredKey{Name: "b", Owner: bot})
	put(p, "of-core", StoredKey{Name: "c", Owner: core, Expires: noon})
	put(p, "off", StoredKey{Name: "off", Owner: core, State: StateDisabled})
	put(p, "gone", StoredKey{Name: "gone", Owner: core, State: StateRevoked, Expires: noon.Add(-time.Hour)})
	put(p, "old-role", StoredKey{Name: "o", Owner: &Owner{Team: "core", Roles: []string{"dropped"}}})
	put(p, "old-team", StoredKey{Name: "o2", Owner: &Owner{Team: "dropped"}})
	put(p, "old-app", StoredKey{Name: "o3", Owner: &Owner{Application: "dropped"}})
	static := func(token string, k Key) {
		k.Principal.Key = k.Name
		p.Keys[p.HashToken(token)] = &k
	}
	static("static", Key{Name: "s"})
	static("static-gone", Key{Name: "sr", Revoked: true, Disabled: true})
	static("static-old", Key{Name: "se", Expires: noon})
	static("static-off", Key{Name: "sd", Disabled: true})
	static("overridden", Key{Name: "ov"})
	put(p, "overridden", StoredKey{Name: "ov", State: StateRevoked})
	put(p, "left-the-file", StoredKey{Name: "lf", State: StateRevoked})

	for token, tt := range map[string]struct {
		want   ai.Principal
		reason ai.Reason
		roles  []string
	}{
		"of-bot":        {want: ai.Principal{Key: "b", Application: "bot", Team: "core", Roles: []string{"bots", "staff", "user"}}, roles: []string{"bots", "staff", "user"}},
		"of-core":       {want: ai.Principal{Key: "c", Team: "core", Roles: []string{"user"}}, reason: ai.ReasonKeyExpired},
		"off":           {want: ai.Principal{Key: "off", Team: "core", Roles: []string{"user"}}, reason: ai.ReasonKeyDisabled},
		"gone":          {want: ai.Principal{Key: "gone", Team: "core", Roles: []string{"user"}}, reason: ai.ReasonKeyRevoked},
		"old-role":      {want: ai.Principal{Key: "o", Team: "core"}, reason: ai.ReasonKeyOrphaned},
		"old-team":      {want: ai.Principal{Key: "o2", Team: "dropped"}, reason: ai.ReasonKeyOrphaned},
		"old-app":       {want: ai.Principal{Key: "o3", Application: "dropped"}, reason: ai.ReasonKeyOrphaned},
		"static":        {want: ai.Principal{Key: "s"}},
		"static-gone":   {want: ai.Principal{Key: "sr"}, reason: ai.ReasonKeyRevoked},
		"static-old":    {want: ai.Principal{Key: "se"}, reason: ai.ReasonKeyExpired},
		"static-off":    {want: ai.Principal{Key: "sd"}, reason: ai.ReasonKeyDisabled},
		"overridden":    {want: ai.Principal{Key: "ov"}, reason: ai.ReasonKeyRevoked},
		"left-the-file": {want: ai.Principal{Key: "lf"}, reason: ai.ReasonKeyRevoked},
		"of-boT":        {reason: ai.ReasonInvalidKey},
		"of-bot ":       {reason: ai.ReasonInvalidKey},
		"":              {reason: ai.ReasonInvalidKey},
		"weir_of-bot":   {reason: ai.ReasonInvalidKey},
	} {
		c, reason := p.KeyByToken(token, noon)
		if reason != tt.reason || !cmp.Equal(c.Principal, tt.want) {
			t.Errorf("%s: %+v, %q; want %+v, %q", token, c.Principal, reason, tt.want, tt.reason)
		}
		if (c.Key == nil) != (reason != ai.ReasonNone) || c.Key != nil && !slices.Equal(rolesOf(c.Key), tt.roles) {
			t.Errorf("%s: %+v with %q", token, c.Key, reason)
		}
	}
	if c, reason := p.KeyByToken("of-core", noon.Add(-time.Second)); reason != "" || c.Key == nil {
		t.Errorf("a second before it expires: %q", reason)
	}
	want := map[string]int{"active": 1, "disabled": 1, "revoked": 1, "expired": 1, "orphaned": 3}
	if got := p.Stored.Census(noon); !cmp.Equal(got, want) {
		t.Errorf("census: %v", got)
	}
	put(p, "of-bot", StoredKey{Remove: true})
	if _, reason := p.KeyByToken("of-bot", noon); reason != ai.ReasonInvalidKey {
		t.Errorf("taken out: %q", reason)
	}
}

// An owner means what the plan of the request says, not what another one does.
func TestOwnersFollowThePlan(t *testing.T) {
	ring := NewRing()
	before := testPlan(ring)
	put(before, "of-core", StoredKey{Name: "c", Owner: &Owner{Team: "core", Roles: []string{"staff"}}})
	put(before, "again", StoredKey{Name: "d", Owner: &Owner{Team: "core", Roles: []string{"staff"}}})
	put(before, "off", StoredKey{Name: "e", Owner: &Owner{Team: "core", Roles: []string{"staff"}}, State: StateDisabled})
	after := testPlan(nil)
	after.Stored = ring
	delete(after.Roles, "staff")
	if got := ring.Bind(after); !cmp.Equal(got, []Orphans{{"role staff", 2}}) {
		t.Errorf("orphans: %+v", got)
	}
	if _, reason := after.KeyByToken("of-core", noon); reason != ai.ReasonKeyOrphaned {
		t.Errorf("under the plan without the role: %q", reason)
	}
	if c, reason := before.KeyByToken("of-core", noon); reason != "" || !slices.Equal(rolesOf(c.Key), []string{"staff", "user"}) {
		t.Errorf("a request that began before: %q, %+v", reason, c)
	}
	if got := ring.Bind(before); got != nil {
		t.Errorf("the role is back, and there are orphans: %+v", got)
	}
}

// The ring against a map, over random changes in lists of any length.
func TestRingIsAMap(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	ring, model := NewRing(), map[KeyHash]StoredKey{}
	p := testPlan(ring)
	owners := []*Owner{nil, {Team: "core"}, {Application: "bot"}}
	var all []KeyHash
	for range 300 {
		var list []StoredKey
		for range rnd.IntN(40) {
			h := p.HashToken(fmt.Sprint(rnd.Uint64()))
			binary.BigEndian.PutUint16(h[:], uint16(rnd.IntN(8))<<1) // few shards
			if len(all) > 0 && rnd.IntN(3) == 0 {
				h = all[rnd.IntN(len(all))]
			}
			all = append(all, h)
			k := StoredKey{Hash: h, Name: fmt.Sprintf("k%d", rnd.IntN(1e6)), State: State(rnd.IntN(3)), Owner: owners[rnd.IntN(3)], Remove: rnd.IntN(4) == 0}
			list = append(list, k)
			if model[h] = k; k.Remove {
				delete(model, h)
			}
		}
		ring.Put(list)
	}
	for _, h := range all {
		want, isThere := model[h]
		got, ok := ring.find(&h)
		if ok != isThere || ok && (got.name != want.Name || got.state != want.State || (got.owner == nil) != (want.Owner == nil)) {
			t.Fatalf("%x: got %+v, %v; want %+v, %v", h[:4], got, ok, want, isThere)
		}
	}
	n := 0
	ring.each(func(*shard, *entry) { n++ })
	if n != len(model) || n < 100 {
		t.Errorf("%d entries, want %d", n, len(model))
	}
}

// Readers beside a writer: for the race detector, and no key is ever absent.
func TestRingConcurrently(t *testing.T) {
	ring := NewRing()
	p := testPlan(ring)
	put(p, "stays", StoredKey{Name: "stays", Owner: &Owner{Team: "core"}})
	var done sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		done.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if c, reason := p.KeyByToken("stays", noon); reason != "" || c.Principal.Key != "stays" || c.Principal.Team != "core" {
					t.Errorf("%q %+v", reason, c)
					return
				}
				ring.Census(noon)
			}
		})
	}
	for i := range 2000 {
		h := p.HashToken("stays")
		h[31]++ // its neighbour
		ring.Put([]StoredKey{{Hash: h, Name: fmt.Sprint(i), Owner: &Owner{Team: "core", Roles: []string{fmt.Sprint("r", i)}}}})
		if i%100 == 0 {
			ring.Bind(p)
		}
	}
	close(stop)
	done.Wait()
}

// filled is a plan with n stored keys, of 1000 owners.
func filled(tb testing.TB, n int) *Plan {
	tb.Helper()
	p := testPlan(NewRing())
	p.Directory.Applications = map[string]Application{}
	for i := range 1000 {
		p.Directory.Applications[fmt.Sprintf("application-%d", i)] = Application{Team: "core"}
	}
	var list []StoredKey
	for i := range n {
		list = append(list, StoredKey{
			Hash: p.HashToken(benchToken(i)), Name: fmt.Sprintf("application-%d-key-%d", i%1000, i),
			Owner: &Owner{Application: fmt.Sprintf("application-%d", i%1000)},
		})
		if len(list) == 1<<16 || i == n-1 {
			p.Stored.Put(list)
			list = list[:0]
		}
	}
	p.Stored.Bind(p)
	return p
}

// benchToken has the form of weir's own keys, made from a number.
func benchToken(i int) string {
	body := fmt.Sprintf("weir_%032d", i)
	check := checksum(body)
	return body + string(check[:])
}

// pooled tells that a sync.Pool gives back what it was given.
var pooled = true

// What a key costs in memory, and that nothing is allocated to look one up.
func TestRingMemory(t *testing.T) {
	const n = 200_000
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	p := filled(t, n)
	runtime.GC()
	runtime.ReadMemStats(&after)
	per := float64(after.HeapAlloc-before.HeapAlloc) / n
	t.Logf("%.0f bytes a key", per)
	if per > 150 {
		t.Errorf("%.0f bytes a key, want at most 150", per)
	}
	right, wrong := benchToken(4711), benchToken(n+1)
	if allocs := testing.AllocsPerRun(100, func() {
		c, reason := p.KeyByToken(right, noon)
		_, other := p.KeyByToken(wrong, noon)
		if reason != "" || c.Key == nil || other != ai.ReasonInvalidKey {
			t.Fatalf("%q, %q", reason, other)
		}
	}); allocs > 0 && pooled {
		t.Errorf("%.0f allocations", allocs)
	}
}

func BenchmarkKeyByToken(b *testing.B) {
	for _, n := range []int{10, 1000, 100_000, 1_000_000} {
		p := filled(b, n)
		malformed := []byte(benchToken(1))
		malformed[42] ^= 1
		tokens := map[string]func(int) string{
			"right":     func(i int) string { return benchToken(i * 7919 % n) },
			"wrong":     func(i int) string { return benchToken(n + i) },
			"malformed": func(int) string { return string(malformed) },
		}
		for _, kind := range []string{"right", "wrong", "malformed"} {
			list := make([]string, 1<<16)
			for i := range list {
				list[i] = tokens[kind](i)
			}
			b.Run(fmt.Sprintf("%s/%d", kind, n), func(b *testing.B) {
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					_, reason := p.KeyByToken(list[i&(1<<16-1)], noon)
					if (reason == "") != (kind == "right") {
						b.Fatal(reason)
					}
					i++
				}
			})
		}
		b.Run(fmt.Sprintf("census/%d", n), func(b *testing.B) {
			for b.Loop() {
				p.Stored.Census(noon)
			}
		})
		b.Run(fmt.Sprintf("revoke/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i++
				p.Stored.Put([]StoredKey{{Hash: p.HashToken(benchToken(i * 7919 % n)), Name: "revoked", State: StateRevoked}})
			}
		})
	}
}
