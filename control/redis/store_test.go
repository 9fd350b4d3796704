package redis

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/rueidis"

	"github.com/weirproxy/weir/control"
	"github.com/weirproxy/weir/internal/plan"
	limits "github.com/weirproxy/weir/limit/redis"
	"github.com/weirproxy/weir/limit/redis/redistest"
)

func connect(t testing.TB, s *redistest.Server) rueidis.Client {
	t.Helper()
	c, err := limits.Connect(&limits.Server{Addresses: []string{s.Address()}}, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func open(t testing.TB, s *redistest.Server, dir string) *Store {
	t.Helper()
	st, err := Open(t.Context(), connect(t, s), "weir", dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	return st
}

func hash(text string) (h plan.KeyHash) {
	copy(h[:], text)
	return h
}

var at = time.UnixMicro(1_900_000_000_123_456).UTC()

func key(name string, owner plan.Owner) *control.Key {
	return &control.Key{
		Name: name, Owner: owner, Created: at, Creator: "ann", Note: "a note",
		Secrets: []control.Secret{{Hash: hash(name), Created: at}},
	}
}

func record(action, object string) control.Record {
	return control.Record{Time: at, Actor: "ann", Roles: []string{"admin"}, Action: action, Object: object, After: "x", Outcome: control.Done}
}

var check = []byte("check")

func (s *Store) must(t testing.TB, c control.Change) control.Revision {
	t.Helper()
	c.HashCheck = check
	r, err := s.Put(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestKeysAndOverrides(t *testing.T) {
	t.Parallel()
	for _, name := range redistest.Available(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t, redistest.Start(t, name), t.TempDir())
			if b, err := s.HashCheck(t.Context()); err != nil || b != nil {
				t.Errorf("%q, %v", b, err)
			}
			a := key("a", plan.Owner{Team: "core", Roles: []string{"x", "y"}})
			if r := s.must(t, control.Change{Key: a, Record: record("key.create", "key/a")}); r != 1 {
				t.Errorf("revision %d", r)
			}
			a.Revision = 1
			if got, err := s.Key(t.Context(), "a"); err != nil || !cmp.Equal(got, *a) {
				t.Errorf("%v\n%s", err, cmp.Diff(got, *a))
			}
			for _, tt := range []struct {
				change control.Change
				want   error
			}{
				{control.Change{Key: a, HashCheck: check}, control.ErrExists},
				{control.Change{Key: a, HashCheck: check, Was: 7}, control.ErrConflict},
				{control.Change{Key: key("b", plan.Owner{}), HashCheck: check, Was: 1}, control.ErrConflict},
				{control.Change{Key: key("b", plan.Owner{}), HashCheck: []byte("another")}, control.ErrHashSecret},
			} {
				if _, err := s.Put(t.Context(), tt.change); !errors.Is(err, tt.want) {
					t.Errorf("%v, want %v", err, tt.want)
				}
			}
			thief := key("thief", plan.Owner{Team: "core"})
			thief.Secrets = a.Secrets
			if _, err := s.Put(t.Context(), control.Change{Key: thief, HashCheck: check}); err == nil || !strings.Contains(err.Error(), "another key has the secret") {
				t.Errorf("%v", err)
			}
			// Rotated, and given to an application: what found it before does not any more.
			a.Owner, a.State, a.Rotated, a.Expires = plan.Owner{Application: "app"}, plan.StateRevoked, at, at.Add(time.Hour)
			a.Secrets = []control.Secret{{Hash: hash("new"), Created: at, Expires: at}}
			a.Revision = s.must(t, control.Change{Key: a, Was: 1, Record: record("key.rotate", "key/a")})
			if got, err := s.Key(t.Context(), "a"); err != nil || !cmp.Equal(got, *a) {
				t.Errorf("%v\n%s", err, cmp.Diff(got, *a))
			}
			if _, err := s.KeyByHash(t.Context(), hash("a")); !errors.Is(err, control.ErrNotFound) {
				t.Errorf("the old secret finds it: %v", err)
			}
			if name, err := s.KeyByHash(t.Context(), hash("new")); err != nil || name != "a" {
				t.Errorf("%q, %v", name, err)
			}
			o := &control.Override{Hash: hash("file"), Name: "of the file", State: plan.StateRevoked}
			o.Revision = s.must(t, control.Change{Override: o, Record: record("key.revoke", "key/file")})
			if got, err := s.Override(t.Context(), o.Hash); err != nil || !cmp.Equal(got, *o) {
				t.Errorf("%+v, %v", got, err)
			}
			if _, err := s.Override(t.Context(), hash("other")); !errors.Is(err, control.ErrNotFound) {
				t.Errorf("%v", err)
			}
			if _, err := s.Key(t.Context(), "none"); !errors.Is(err, control.ErrNotFound) {
				t.Errorf("%v", err)
			}
			if b, err := s.HashCheck(t.Context()); err != nil || string(b) != string(check) {
				t.Errorf("%q, %v", b, err)
			}
		})
	}
}

func TestLists(t *testing.T) {
	t.Parallel()
	s := open(t, redistest.Start(t, redistest.Valkey), t.TempDir())
	for i := range 30 {
		owner := plan.Owner{Team: "core"}
		if i%3 > 0 {
			owner = plan.Owner{Application: fmt.Sprint("app-", i%3)}
		}
		s.must(t, control.Change{Key: key(fmt.Sprintf("k%02d", i), owner), Record: record("key.create", fmt.Sprintf("key/k%02d", i))})
	}
	names := func(f control.KeyFilter, after string, limit int) string {
		list, err := s.Keys(t.Context(), f, after, limit)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, k := range list {
			names = append(names, k.Name)
		}
		return strings.Join(names, " ")
	}
	for _, tt := range []struct{ got, want string }{
		{names(control.KeyFilter{}, "", 3), "k00 k01 k02"},
		{names(control.KeyFilter{}, "k27", 100), "k28 k29"},
		{names(control.KeyFilter{Team: "core"}, "k03", 2), "k06 k09"},
		{names(control.KeyFilter{Team: "core", Applications: []string{"app-2"}}, "k25", 10), "k26 k27 k29"},
		{names(control.KeyFilter{Applications: []string{"none"}}, "", 10), ""},
	} {
		if tt.got != tt.want {
			t.Errorf("%q, want %q", tt.got, tt.want)
		}
	}
	denied := record("key.revoke", "key/k00")
	denied.Outcome, denied.Actor, denied.Time = control.Denied, "bob", at.Add(time.Hour)
	if err := s.Note(t.Context(), denied); err != nil {
		t.Fatal(err)
	}
	denied.ID = 31
	for _, tt := range []struct {
		f     control.AuditFilter
		limit int
		ids   []int64
	}{
		{control.AuditFilter{}, 2, []int64{31, 30}},
		{control.AuditFilter{Before: 3}, 5, []int64{2, 1}},
		{control.AuditFilter{Object: "key/k00"}, 5, []int64{31, 1}},
		{control.AuditFilter{Actor: "bob", Outcome: control.Denied, Action: "key.revoke"}, 5, []int64{31}},
		{control.AuditFilter{Since: at.Add(time.Minute)}, 5, []int64{31}},
		{control.AuditFilter{Actor: "eve"}, 5, nil},
	} {
		list, err := s.Audit(t.Context(), tt.f, tt.limit)
		var ids []int64
		for _, r := range list {
			ids = append(ids, r.ID)
		}
		if err != nil || !cmp.Equal(ids, tt.ids) {
			t.Errorf("%+v: %v, %v, want %v", tt.f, ids, err, tt.ids)
		}
		if len(list) > 0 && list[0].ID == 31 && !cmp.Equal(list[0], denied) {
			t.Error(cmp.Diff(list[0], denied))
		}
	}
}

// What changes while changes are read is there in the end as it is.
func TestChanges(t *testing.T) {
	t.Parallel()
	s := open(t, redistest.Start(t, redistest.Valkey), t.TempDir())
	const n = 2 * atOnce
	for i := range n {
		s.must(t, control.Change{Key: key(fmt.Sprint("k", i), plan.Owner{Team: "core"})})
	}
	state := map[string]plan.State{}
	follow := func(since control.Revision, during func(i int)) control.Revision {
		i := 0
		r, err := s.Changes(t.Context(), since, func(k *control.Key, o *control.Override) error {
			if i++; during != nil {
				during(i)
			}
			if k != nil {
				state[k.Name] = k.State
			} else {
				state[o.Name] = o.State
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := follow(0, func(i int) {
		if i == 10 { // one that was read, one that was not, and one that is new
			for _, name := range []string{"k1", fmt.Sprint("k", n-1)} {
				k, err := s.Key(t.Context(), name)
				if err != nil {
					t.Fatal(err)
				}
				k.State = plan.StateRevoked
				s.must(t, control.Change{Key: &k, Was: k.Revision})
			}
			s.must(t, control.Change{Override: &control.Override{Hash: hash("f"), Name: "file", State: plan.StateRevoked}})
		}
	})
	if r != n+3 || len(state) != n+1 || state["k1"] != plan.StateRevoked || state[fmt.Sprint("k", n-1)] != plan.StateRevoked || state["file"] != plan.StateRevoked {
		t.Errorf("revision %d, %d objects, k1 %v", r, len(state), state["k1"])
	}
	clear(state)
	if again := follow(r, nil); again != r || len(state) != 0 {
		t.Errorf("%d, %v", again, state)
	}
	stop := errors.New("stop")
	if _, err := s.Changes(t.Context(), 0, func(*control.Key, *control.Override) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("%v", err)
	}
}

// Whatever happened to the server, keys and revocations do not go without a word.
func TestLostStores(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Valkey)
	c := connect(t, server)
	defer c.Close()
	dir := t.TempDir()
	s := open(t, server, dir)
	s.must(t, control.Change{Key: key("a", plan.Owner{Team: "core"})})
	if _, err := s.Revision(t.Context()); err != nil {
		t.Fatal(err)
	}
	old := map[string]string{}
	keys, err := c.Do(t.Context(), c.B().Keys().Pattern("*").Build()).AsStrSlice()
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		if old[k], err = c.Do(t.Context(), c.B().Dump().Key(k).Build()).ToString(); err != nil {
			t.Fatal(err)
		}
	}
	s.must(t, control.Change{Key: key("b", plan.Owner{Team: "core"})})
	if r, err := s.Revision(t.Context()); err != nil || r != 2 {
		t.Fatalf("%d, %v", r, err)
	}
	fails := func(what, want string) {
		t.Helper()
		st, err := Open(t.Context(), connect(t, server), "weir", dir)
		if err == nil {
			_ = st.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", what, err, want)
		}
	}
	wipe := func() {
		if err := c.Do(t.Context(), c.B().Flushall().Build()).Error(); err != nil {
			t.Fatal(err)
		}
	}
	wipe()
	if _, err := s.Revision(t.Context()); err == nil {
		t.Error("the store is gone, and nothing is said")
	}
	if _, err := s.Put(t.Context(), control.Change{Key: key("c", plan.Owner{}), HashCheck: check}); err == nil {
		t.Error("changed a store that is gone")
	}
	fails("emptied", "it is empty, and was not")
	for k, v := range old {
		if err := c.Do(t.Context(), c.B().Restore().Key(k).Ttl(0).SerializedValue(v).Build()).Error(); err != nil {
			t.Fatal(err)
		}
	}
	fails("an old copy", "it is at revision 1, and was at 2")
	wipe()
	open(t, server, t.TempDir())
	fails("another store", "it is another one")
	if err := os.Truncate(filepath.Join(dir, MarkerFile), 0); err != nil {
		t.Fatal(err)
	}
	fails("a damaged marker", "is damaged")
	if err := os.Remove(filepath.Join(dir, MarkerFile)); err != nil {
		t.Fatal(err)
	}
	open(t, server, dir)
}

// A server that loses a store in which nothing was has lost nothing.
func TestEmptyStoreIsNotLost(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Valkey)
	one, two := t.TempDir(), t.TempDir()
	a, b := open(t, server, one), open(t, server, two)
	c := connect(t, server)
	defer c.Close()
	for range 2 {
		if err := c.Do(t.Context(), c.B().Flushall().Build()).Error(); err != nil {
			t.Fatal(err)
		}
		for _, s := range []*Store{a, b} {
			if r, err := s.Revision(t.Context()); err != nil || r != 0 {
				t.Errorf("%d, %v", r, err)
			}
		}
	}
	open(t, server, one)
	a.must(t, control.Change{Key: key("a", plan.Owner{Team: "core"})})
	if r, err := b.Revision(t.Context()); err != nil || r != 1 {
		t.Errorf("%d, %v", r, err)
	}
}

func FuzzKey(f *testing.F) {
	text, err := encodeKey(key("a", plan.Owner{Team: "core", Roles: []string{"x"}}))
	if err != nil {
		f.Fatal(err)
	}
	f.Add("1 " + text)
	f.Add(`2 {"secrets":[{"hash":""}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		k, err := decodeKey("a", text)
		if err != nil {
			return
		}
		again, err := encodeKey(&k)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := decodeKey("a", fmt.Sprint(k.Revision, " ", again)); err != nil || !cmp.Equal(got, k) {
			t.Errorf("%+v\n%+v: %v", k, got, err)
		}
		_, _ = decodeOverride(text, text)
		_, _ = decodeRecord(1, text)
	})
}
