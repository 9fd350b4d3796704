// Package storetest holds what every control store promises, for the tests of each.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weirproxy/weir/control"
	"github.com/weirproxy/weir/internal/plan"
)

// Place is a place for one store that is empty yet. Each call opens it once more, as
// another process would; what was opened is closed with the test.
type Place func(t testing.TB) control.Store

// Run holds a kind of store to its promises, each in a place of its own.
func Run(t *testing.T, place func(t testing.TB) Place) {
	for name, test := range map[string]func(*testing.T, Place){
		"keys": keys, "overrides": overrides, "refused changes": refused, "pages": pages, "audit": audit, "changes": changes,
		"changes meanwhile": changesMeanwhile, "one at a time": oneAtATime, "revocations reach others": reaches, "again": again, "rollouts": rollouts,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, place(t))
		})
	}
}

var (
	at    = time.UnixMicro(1_900_000_000_123_456).UTC()
	check = []byte("check")
)

// Hash makes a hash that tells texts of up to 32 bytes apart.
func Hash(text string) (h plan.KeyHash) {
	copy(h[:], text)
	return h
}

// Key makes a key with one secret, whose hash is of the key's name.
func Key(name string, owner plan.Owner) *control.Key {
	return &control.Key{
		Name: name, Owner: owner, Created: at, Creator: "ann", Note: "a note",
		Secrets: []control.Secret{{Hash: Hash(name), Created: at}},
	}
}

func record(action, object string) control.Record {
	return control.Record{Time: at, Actor: "ann", Roles: []string{"admin", "x"}, Action: action, Object: object, Before: "a", After: "b", Outcome: control.Done, Detail: `why "so"`}
}

// Put makes a change that must be possible.
func Put(t testing.TB, s control.Store, c control.Change) control.Revision {
	t.Helper()
	if c.HashCheck == nil {
		c.HashCheck = check
	}
	if c.Record.Action == "" {
		c.Record = record("test", "test")
	}
	r, err := s.Put(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func same[T any](t *testing.T, want, got T, err error) {
	t.Helper()
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v, -want +got:\n%s", err, diff)
	}
}

func fails(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%v, want %v", err, want)
	}
}

// What is stored comes back as it is, also to those who had the store open before.
func keys(t *testing.T, place Place) {
	s, other := place(t), place(t)
	a := Key("a", plan.Owner{Team: "core", Roles: []string{"x", "y"}})
	a.Note = "two\nlines, \x00, ü, </script>, \u2028 \\"
	a.Revision = Put(t, s, control.Change{Key: a})
	if a.Revision != 1 {
		t.Errorf("the first revision is %d", a.Revision)
	}
	// Given to an application, rotated, bound and revoked.
	b := *a
	b.Owner, b.State, b.Rotated, b.Expires = plan.Owner{Application: "app"}, plan.StateRevoked, at.Add(time.Minute), at.Add(time.Hour)
	b.Secrets = []control.Secret{{Hash: Hash("new"), Created: at, Expires: at.Add(time.Hour)}, a.Secrets[0]}
	for _, k := range []*control.Key{a, &b} {
		if k == &b {
			b.Revision = Put(t, s, control.Change{Key: &b, Was: a.Revision})
		}
		for _, s := range []control.Store{s, other} {
			got, err := s.Key(t.Context(), "a")
			same(t, *k, got, err)
			for _, secret := range k.Secrets {
				name, err := s.KeyByHash(t.Context(), secret.Hash)
				same(t, "a", name, err)
			}
		}
	}
	// What was forgotten is found no more, and may be another's.
	b.Secrets = b.Secrets[:1]
	Put(t, other, control.Change{Key: &b, Was: b.Revision})
	_, err := s.KeyByHash(t.Context(), a.Secrets[0].Hash)
	fails(t, err, control.ErrNotFound)
	heir := Key("heir", plan.Owner{Team: "core"})
	heir.Secrets[0].Hash = a.Secrets[0].Hash
	Put(t, s, control.Change{Key: heir})
	for _, name := range []string{"none", "", "A", "a "} {
		_, err := s.Key(t.Context(), name)
		fails(t, err, control.ErrNotFound)
	}
}

func overrides(t *testing.T, place Place) {
	s, other := place(t), place(t)
	_, err := s.Override(t.Context(), Hash("file"))
	fails(t, err, control.ErrNotFound)
	o := &control.Override{Hash: Hash("file"), Name: "of the file"}
	for _, state := range []plan.State{plan.StateDisabled, plan.StateActive, plan.StateRevoked} {
		was := o.Revision
		o.State = state
		o.Revision = Put(t, s, control.Change{Override: o, Was: was})
		got, err := other.Override(t.Context(), o.Hash)
		same(t, *o, got, err)
		if o.Revision != was+1 {
			t.Errorf("revision %d after %d", o.Revision, was)
		}
	}
	// Hashes are bytes, not texts.
	for _, h := range []plan.KeyHash{{}, {31: 1}, {0xff, 0, 0xfe}} {
		o := &control.Override{Hash: h, Name: "odd", State: plan.StateRevoked}
		o.Revision = Put(t, s, control.Change{Override: o})
		got, err := s.Override(t.Context(), h)
		same(t, *o, got, err)
	}
}

// A change that is refused leaves nothing behind.
func refused(t *testing.T, place Place) {
	s := place(t)
	b, err := s.HashCheck(t.Context())
	if err != nil || len(b) != 0 {
		t.Errorf("%q, %v", b, err)
	}
	a, o := Key("a", plan.Owner{Team: "core"}), &control.Override{Hash: Hash("file"), Name: "file"}
	Put(t, s, control.Change{Key: a})
	Put(t, s, control.Change{Override: o})
	thief, twice := Key("thief", plan.Owner{Team: "core"}), Key("b", plan.Owner{Team: "core"})
	thief.Secrets = append(thief.Secrets, a.Secrets...)
	other := []byte("another")
	for name, tt := range map[string]struct {
		change control.Change
		want   error // nil is any
	}{
		"there is one":                {control.Change{Key: a, HashCheck: check}, control.ErrExists},
		"it is elsewhere":             {control.Change{Key: a, HashCheck: check, Was: 7}, control.ErrConflict},
		"there is none":               {control.Change{Key: twice, HashCheck: check, Was: 1}, control.ErrConflict},
		"there is an override":        {control.Change{Override: o, HashCheck: check}, control.ErrExists},
		"the override is elsewhere":   {control.Change{Override: o, HashCheck: check, Was: 1}, control.ErrConflict},
		"another secret":              {control.Change{Key: twice, HashCheck: other}, control.ErrHashSecret},
		"another secret, an override": {control.Change{Override: o, HashCheck: other, Was: 2}, control.ErrHashSecret},
		"no secret":                   {control.Change{Key: twice}, control.ErrHashSecret},
		"another key's secret":        {control.Change{Key: thief, HashCheck: check}, nil},
	} {
		tt.change.Record = record("key.test", "key/refused")
		_, err := s.Put(t.Context(), tt.change)
		if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	r, err := s.Revision(t.Context())
	same(t, 2, r, err)
	list, err := s.Audit(t.Context(), control.AuditFilter{Object: "key/refused"}, 10)
	same(t, nil, list, err)
	all, err := s.Keys(t.Context(), control.KeyFilter{}, "", 10)
	same(t, []control.Key{{
		Name: "a", Owner: a.Owner, Created: at, Creator: "ann", Note: "a note", Secrets: a.Secrets, Revision: 1,
	}}, all, err)
	name, err := s.KeyByHash(t.Context(), a.Secrets[0].Hash)
	same(t, "a", name, err)
	_, err = s.KeyByHash(t.Context(), thief.Secrets[0].Hash)
	fails(t, err, control.ErrNotFound)
	b, err = s.HashCheck(t.Context())
	same(t, check, b, err)
}

func pages(t *testing.T, place Place) {
	s := place(t)
	for i := range 30 {
		owner := plan.Owner{Team: "core"}
		if i%3 > 0 {
			owner = plan.Owner{Application: fmt.Sprint("app-", i%3)}
		}
		Put(t, s, control.Change{Key: Key(fmt.Sprintf("k%02d", i), owner)})
	}
	moved, err := s.Key(t.Context(), "k00")
	if err != nil {
		t.Fatal(err)
	}
	moved.Owner = plan.Owner{Application: "app-2"}
	Put(t, s, control.Change{Key: &moved, Was: moved.Revision})
	for _, tt := range []struct {
		f     control.KeyFilter
		after string
		limit int
		want  string
	}{
		{control.KeyFilter{}, "", 3, "k00 k01 k02"},
		{control.KeyFilter{}, "k27", 100, "k28 k29"},
		{control.KeyFilter{}, "k2", 2, "k20 k21"},
		{control.KeyFilter{}, "k29", 100, ""},
		{control.KeyFilter{Team: "core"}, "", 2, "k03 k06"},
		{control.KeyFilter{Team: "core", Applications: []string{"app-2"}}, "k25", 10, "k26 k27 k29"},
		{control.KeyFilter{Applications: []string{"app-2", "app-1"}}, "", 4, "k00 k01 k02 k04"},
		{control.KeyFilter{Applications: []string{"none"}}, "", 10, ""},
		{control.KeyFilter{Team: "none"}, "", 10, ""},
	} {
		list, err := s.Keys(t.Context(), tt.f, tt.after, tt.limit)
		var names []string
		for _, k := range list {
			names = append(names, k.Name)
		}
		if got := strings.Join(names, " "); err != nil || got != tt.want {
			t.Errorf("%+v after %q: %q, %v, want %q", tt.f, tt.after, got, err, tt.want)
		}
	}
}

func audit(t *testing.T, place Place) {
	s := place(t)
	for i := range 30 {
		name := fmt.Sprintf("k%02d", i)
		Put(t, s, control.Change{Key: Key(name, plan.Owner{Team: "core"}), Record: record("key.create", "key/"+name)})
	}
	denied := record("key.revoke", "key/k00")
	denied.Outcome, denied.Actor, denied.Time = control.Denied, "bob", at.Add(time.Hour)
	if err := s.Note(t.Context(), denied); err != nil {
		t.Fatal(err)
	}
	r, err := s.Revision(t.Context())
	same(t, 30, r, err)
	first := record("key.create", "key/k00")
	denied.ID, first.ID = 31, 1
	for _, tt := range []struct {
		f     control.AuditFilter
		limit int
		ids   []int64
	}{
		{control.AuditFilter{}, 2, []int64{31, 30}},
		{control.AuditFilter{Before: 3}, 5, []int64{2, 1}},
		{control.AuditFilter{Before: 1}, 5, nil},
		{control.AuditFilter{Before: 1000}, 1, []int64{31}},
		{control.AuditFilter{Object: "key/k00"}, 5, []int64{31, 1}},
		{control.AuditFilter{Actor: "bob", Outcome: control.Denied, Action: "key.revoke"}, 5, []int64{31}},
		{control.AuditFilter{Since: at.Add(time.Minute)}, 5, []int64{31}},
		{control.AuditFilter{Since: at.Add(time.Hour)}, 5, []int64{31}},
		{control.AuditFilter{Actor: "eve"}, 5, nil},
	} {
		list, err := s.Audit(t.Context(), tt.f, tt.limit)
		var ids []int64
		for _, r := range list {
			ids = append(ids, r.ID)
		}
		if err != nil || !slices.Equal(ids, tt.ids) {
			t.Errorf("%+v: %v, %v, want %v", tt.f, ids, err, tt.ids)
		}
	}
	list, err := s.Audit(t.Context(), control.AuditFilter{Object: "key/k00"}, 5)
	same(t, []control.Record{denied, first}, list, err)
}

// seen is what a store says has changed, by name.
type seen map[string]plan.State

func (m seen) take(k *control.Key, o *control.Override) error {
	if k != nil {
		m[k.Name] = k.State
	} else {
		m["override "+o.Name] = o.State
	}
	return nil
}

func changes(t *testing.T, place Place) {
	s := place(t)
	r, err := s.Changes(t.Context(), 0, seen{}.take)
	same(t, 0, r, err)
	for i := range 10 {
		Put(t, s, control.Change{Key: Key(fmt.Sprint("k", i), plan.Owner{Team: "core"})})
	}
	Put(t, s, control.Change{Override: &control.Override{Hash: Hash("f"), Name: "f", State: plan.StateRevoked}})
	k, err := s.Key(t.Context(), "k3")
	if err != nil {
		t.Fatal(err)
	}
	k.State = plan.StateDisabled
	Put(t, s, control.Change{Key: &k, Was: k.Revision})
	for since, want := range map[control.Revision]seen{
		8: {"k8": 0, "k9": 0, "override f": plan.StateRevoked, "k3": plan.StateDisabled}, 10: {"override f": plan.StateRevoked, "k3": plan.StateDisabled},
		11: {"k3": plan.StateDisabled}, 12: {},
	} {
		got := seen{}
		r, err := s.Changes(t.Context(), since, got.take)
		same(t, want, got, err)
		same(t, 12, r, err)
	}
	all := seen{}
	_, err = s.Changes(t.Context(), 0, all.take)
	same(t, 11, len(all), err)
	stop := errors.New("stop")
	_, err = s.Changes(t.Context(), 0, func(*control.Key, *control.Override) error { return stop })
	fails(t, err, stop)
}

// What changes while changes are read is missed by nobody: it is in what is read, or
// after the revision that reading returns.
func changesMeanwhile(t *testing.T, place Place) {
	const n = 1100 // more than a store reads at once
	s, other := place(t), place(t)
	for i := range n {
		Put(t, s, control.Change{Key: Key(fmt.Sprint("k", i), plan.Owner{Team: "core"})})
	}
	got, i := seen{}, 0
	r, err := s.Changes(t.Context(), 0, func(k *control.Key, o *control.Override) error {
		if i++; i == 10 { // one that may have been read, one that was not, and one that is new
			for _, name := range []string{"k1", fmt.Sprint("k", n-1)} {
				k, err := other.Key(t.Context(), name)
				if err != nil {
					return err
				}
				k.State = plan.StateRevoked
				Put(t, other, control.Change{Key: &k, Was: k.Revision})
			}
			Put(t, other, control.Change{Override: &control.Override{Hash: Hash("f"), Name: "f", State: plan.StateRevoked}})
		}
		return got.take(k, o)
	})
	if err != nil {
		t.Fatal(err)
	}
	r, err = s.Changes(t.Context(), r, got.take)
	same(t, n+3, r, err)
	if len(got) != n+1 || got["k1"] != plan.StateRevoked || got[fmt.Sprint("k", n-1)] != plan.StateRevoked || got["override f"] != plan.StateRevoked {
		t.Errorf("%d objects, k1 %v", len(got), got["k1"])
	}
}

// Of many who change one key at the same time one does, and each change has a
// revision of its own.
func oneAtATime(t *testing.T, place Place) {
	stores := []control.Store{place(t), place(t)}
	Put(t, stores[0], control.Change{Key: Key("k", plan.Owner{Team: "core"})})
	var done sync.WaitGroup
	var made atomic.Int64
	for i := range 8 {
		done.Go(func() {
			s := stores[i%2]
			for range 10 {
				k, err := s.Key(t.Context(), "k")
				if err != nil {
					t.Error(err)
					return
				}
				k.Note += "."
				_, err = s.Put(t.Context(), control.Change{Key: &k, Was: k.Revision, HashCheck: check, Record: record("key.dot", "key/k")})
				switch {
				case err == nil:
					made.Add(1)
				case !errors.Is(err, control.ErrConflict):
					t.Error(err)
				}
			}
		})
	}
	done.Wait()
	k, err := stores[1].Key(t.Context(), "k")
	if n := strings.Count(k.Note, "."); err != nil || int64(n) != made.Load() || n < 10 {
		t.Errorf("%d changes are there of %d, %v", n, made.Load(), err)
	}
	if k.Revision != control.Revision(made.Load()+1) {
		t.Errorf("revision %d after %d changes", k.Revision, made.Load()+1)
	}
	list, err := stores[0].Audit(t.Context(), control.AuditFilter{Action: "key.dot"}, 1000)
	if int64(len(list)) != made.Load() || err != nil {
		t.Errorf("%d records, %v", len(list), err)
	}
}

// within is how soon a revocation holds everywhere.
const within = 2 * time.Second

// A revocation by one process is in force in another within two seconds: measured
// from before the call that revokes.
func reaches(t *testing.T, place Place) {
	a, b := place(t), place(t)
	ring := plan.NewRing()
	f := control.NewFollower(b, ring, slog.New(slog.DiscardHandler))
	ctx, stop := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() { _ = f.Run(ctx) })
	defer done.Wait()
	defer stop()
	revoked := func() int { return ring.Census(time.Now())["revoked"] }
	var slowest time.Duration
	for i := range 5 {
		k := Key(fmt.Sprint("k", i), plan.Owner{Team: "core"})
		k.Revision = Put(t, a, control.Change{Key: k})
		k.State = plan.StateRevoked
		begin := time.Now()
		Put(t, a, control.Change{Key: k, Was: k.Revision})
		for revoked() != i+1 {
			if time.Since(begin) > 5*within {
				t.Fatalf("%d revocations are in force of %d", revoked(), i+1)
			}
			time.Sleep(time.Millisecond)
		}
		slowest = max(slowest, time.Since(begin))
	}
	t.Logf("slowest of 5 revocations: %s", slowest.Round(time.Millisecond))
	if slowest > within {
		t.Errorf("%s until a revocation was in force", slowest)
	}
}

// A store that is opened again has all that was in it.
func again(t *testing.T, place Place) {
	s := place(t)
	Put(t, s, control.Change{Key: Key("a", plan.Owner{Team: "core"})})
	Put(t, s, control.Change{Override: &control.Override{Hash: Hash("f"), Name: "f", State: plan.StateRevoked}})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = place(t)
	got := seen{}
	r, err := s.Changes(t.Context(), 0, got.take)
	same(t, seen{"a": 0, "override f": plan.StateRevoked}, got, err)
	same(t, 2, r, err)
	if r := Put(t, s, control.Change{Key: Key("b", plan.Owner{Team: "core"})}); r != 3 {
		t.Errorf("revision %d", r)
	}
}

// Rollouts change one at a time, with a record, and beside the keys; a change deletes
// what was counted before it.
func rollouts(t *testing.T, place Place) {
	s, other := place(t), place(t)
	key := Put(t, s, control.Change{Key: Key("a", plan.Owner{Team: "core"})})
	one := control.Rollout{Model: "chat", State: []byte(`{"step":1,"text":"\u00fc"}`)}
	one.Revision = Put(t, s, control.Change{Rollout: &one, Record: record("rollout.start", "rollout/chat")})
	if one.Revision <= key {
		t.Errorf("revision %d after %d", one.Revision, key)
	}
	if reached, err := other.Changes(t.Context(), key, func(k *control.Key, o *control.Override) error {
		t.Error("a rollout is among the changes of keys", k, o)
		return nil
	}); err != nil || reached != one.Revision {
		t.Errorf("the changes reach %d, %v", reached, err)
	}
	_, err := other.Put(t.Context(), control.Change{Rollout: &one, HashCheck: check, Record: record("x", "y")})
	fails(t, err, control.ErrExists)
	_, err = other.Put(t.Context(), control.Change{Rollout: &one, Was: key, HashCheck: check, Record: record("x", "y")})
	fails(t, err, control.ErrConflict)

	two := control.Rollout{Model: "a/ü model", State: []byte(`{}`)}
	two.Revision = Put(t, other, control.Change{Rollout: &two})
	tallies := []control.Tally{{Model: "chat", Process: "a", Counts: []byte(`{"n":3}`)}, {Model: "chat", Process: "b", Counts: []byte(`{}`)}}
	for _, c := range []control.Tally{{Model: "chat", Process: "a", Counts: []byte(`{"n":1}`)}, tallies[1], tallies[0], {Model: two.Model, Process: "a", Counts: []byte(`{}`)}} {
		if err := s.Count(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	got, err := other.Tallies(t.Context(), "chat")
	same(t, tallies, got, err)

	one.State = []byte(`{"step":2}`)
	one.Revision = Put(t, other, control.Change{Rollout: &one, Was: one.Revision})
	list, err := s.Rollouts(t.Context())
	same(t, []control.Rollout{two, one}, list, err)
	if got, err := s.Tallies(t.Context(), "chat"); err != nil || len(got) != 0 {
		t.Errorf("tallies of before the change: %v, %v", got, err)
	}
	if got, err := s.Tallies(t.Context(), two.Model); err != nil || len(got) != 1 {
		t.Errorf("tallies of another model: %v, %v", got, err)
	}
	if found, err := s.Audit(t.Context(), control.AuditFilter{Object: "rollout/chat"}, 10); err != nil || len(found) != 1 || found[0].Action != "rollout.start" {
		t.Errorf("records: %v, %v", found, err)
	}
}
