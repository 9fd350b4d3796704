package redis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/rueidis"

	"github.com/weirproxy/weir/control"
	"github.com/weirproxy/weir/control/storetest"
	"github.com/weirproxy/weir/internal/plan"
	limits "github.com/weirproxy/weir/limit/redis"
	"github.com/weirproxy/weir/limit/redis/redistest"
)

func connect(t testing.TB, server limits.Server) rueidis.Client {
	t.Helper()
	c, err := limits.Connect(&server, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func client(t testing.TB, s *redistest.Server) rueidis.Client {
	return connect(t, limits.Server{Addresses: []string{s.Address()}})
}

func openAt(t testing.TB, s *redistest.Server, dir string) *Store {
	t.Helper()
	st, err := Open(t.Context(), client(t, s), "weir", dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	return st
}

func TestStore(t *testing.T) {
	t.Parallel()
	for _, name := range redistest.Available(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t, name)
			var deployments atomic.Int32
			storetest.Run(t, func(t testing.TB) storetest.Place { // deployments at one server are apart
				deployment := fmt.Sprint("weir-", deployments.Add(1))
				return func(t testing.TB) control.Store {
					s, err := Open(t.Context(), client(t, server), deployment, t.TempDir()) // each replica has its own directory
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { _ = s.Close() })
					return s
				}
			})
		})
	}
}

// All keys of a store are in one slot of a cluster.
func TestCluster(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	_ = l.Close()
	node := redistest.Start(t, redistest.Valkey, "--port", port, "--cluster-enabled", "yes", "--cluster-announce-ip", "127.0.0.1")
	c := client(t, node)
	defer c.Close()
	if err := c.Do(t.Context(), c.B().ClusterAddslotsrange().StartSlotEndSlot().StartSlotEndSlot(0, 16383).Build()).Error(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		info, err := c.Do(t.Context(), c.B().ClusterInfo().Build()).ToString()
		if strings.Contains(info, "cluster_state:ok") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", info, err)
		}
	}
	server := limits.Server{Addresses: []string{"127.0.0.1:" + port}, Cluster: true}
	s, err := Open(t.Context(), connect(t, server), "weir", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	storetest.Put(t, s, control.Change{Key: storetest.Key("a", plan.Owner{Team: "core"})})
	if list, err := s.Keys(t.Context(), control.KeyFilter{Team: "core"}, "", 10); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
}

// follow takes in what changed, as a running weir does.
func follow(t *testing.T, s *Store, want control.Revision) {
	t.Helper()
	if r, err := s.Changes(t.Context(), 0, func(*control.Key, *control.Override) error { return nil }); err != nil || r != want {
		t.Fatalf("revision %d, %v, want %d", r, err, want)
	}
}

// image is what a server has, to be put back later.
func image(t *testing.T, c rueidis.Client) map[string]string {
	t.Helper()
	keys, err := c.Do(t.Context(), c.B().Keys().Pattern("*").Build()).AsStrSlice()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, k := range keys {
		if all[k], err = c.Do(t.Context(), c.B().Dump().Key(k).Build()).ToString(); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// become makes a server have what is in an image, and nothing else.
func become(t *testing.T, c rueidis.Client, all map[string]string) {
	t.Helper()
	if err := c.Do(t.Context(), c.B().Flushall().Build()).Error(); err != nil {
		t.Fatal(err)
	}
	for k, v := range all {
		if err := c.Do(t.Context(), c.B().Restore().Key(k).Ttl(0).SerializedValue(v).Build()).Error(); err != nil {
			t.Fatal(err)
		}
	}
}

// Whatever happens to the server, keys and revocations do not go without a word: a
// store that runs answers nothing any more and changes nothing, and none can be
// opened in its directory; and all is well again when the right one is back.
func TestLostStores(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Valkey)
	c := client(t, server)
	defer c.Close()
	dir := t.TempDir()
	s, other := openAt(t, server, dir), openAt(t, server, t.TempDir())
	images := []map[string]string{image(t, c)}
	for _, name := range []string{"a", "b", "c"} {
		storetest.Put(t, s, control.Change{Key: storetest.Key(name, plan.Owner{Team: "core"})})
		images = append(images, image(t, c))
		if name == "b" {
			follow(t, other, 2)
		}
	}
	follow(t, s, 3)
	// A promoted replica that lacks c, and goes on with another replica of weir, which
	// never saw it.
	become(t, c, images[2])
	for _, name := range []string{"d", "e"} {
		storetest.Put(t, other, control.Change{Key: storetest.Key(name, plan.Owner{Team: "core"})})
	}
	parted := image(t, c)
	become(t, c, images[0])
	stranger := openAt(t, server, t.TempDir())
	for range 4 {
		storetest.Put(t, stranger, control.Change{Key: storetest.Key(fmt.Sprint("s", time.Now().UnixNano()), plan.Owner{Team: "core"})})
	}
	strange := image(t, c)

	for _, tt := range []struct {
		what string
		has  map[string]string
		says string
	}{
		{"emptied", images[0], "it is empty, and was at revision 3"},
		{"an old copy", images[1], "it is at revision 1, and was at 3: an older copy"},
		{"a copy that went its own way", parted, "its change 3 is not the one that was there"},
		{"another store", strange, "its change 3 is not the one that was there"},
		{"another deployment's", map[string]string{"{weir}:meta": images[1]["{weir}:control:changed"]}, "it is empty"},
	} {
		become(t, c, tt.has)
		for call, err := range calls(t.Context(), s) {
			if !errors.Is(err, control.ErrLost) || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), Marker(dir)) {
				t.Errorf("%s: %s: %v, want %q", tt.what, call, err, tt.says)
			}
		}
		if now := image(t, c); len(now) != len(tt.has) {
			t.Errorf("%s: it was changed: %d keys, %d before", tt.what, len(now), len(tt.has))
		}
		st, err := Open(t.Context(), client(t, server), "weir", dir)
		if !errors.Is(err, control.ErrLost) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: opened: %v, want %q", tt.what, err, tt.says)
		}
		if err == nil {
			_ = st.Close()
		}
		become(t, c, images[3])
		if r, err := s.Revision(t.Context()); err != nil || r != 3 {
			t.Errorf("the right one is back: %d, %v", r, err)
		}
		openAt(t, server, dir)
	}
	// The other replica saw nothing of c: for it, what has d and e is the store.
	become(t, c, parted)
	if r, err := other.Revision(t.Context()); err != nil || r != 4 {
		t.Errorf("%d, %v", r, err)
	}
	// An operator decides to go on with it.
	if err := os.Remove(Marker(dir)); err != nil {
		t.Fatal(err)
	}
	if r, err := openAt(t, server, dir).Revision(t.Context()); err != nil || r != 4 {
		t.Errorf("%d, %v", r, err)
	}
}

// calls are what each method fails with.
func calls(ctx context.Context, s *Store) map[string]error {
	errs := map[string]error{}
	_, errs["Revision"] = s.Revision(ctx)
	_, errs["Key"] = s.Key(ctx, "a")
	_, errs["Keys"] = s.Keys(ctx, control.KeyFilter{}, "", 10)
	_, errs["KeyByHash"] = s.KeyByHash(ctx, storetest.Hash("a"))
	_, errs["Override"] = s.Override(ctx, storetest.Hash("a"))
	_, errs["Changes"] = s.Changes(ctx, 0, func(*control.Key, *control.Override) error { return nil })
	_, errs["Audit"] = s.Audit(ctx, control.AuditFilter{}, 10)
	_, errs["HashCheck"] = s.HashCheck(ctx)
	errs["Note"] = s.Note(ctx, control.Record{Action: "x"})
	_, errs["Put"] = s.Put(ctx, control.Change{Key: storetest.Key("n", plan.Owner{Team: "core"}), HashCheck: []byte("check")})
	return errs
}

// A server that loses a store in which nothing was has lost nothing.
func TestEmptyStoreIsNotLost(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Valkey)
	dir := t.TempDir()
	a, b := openAt(t, server, dir), openAt(t, server, t.TempDir())
	c := client(t, server)
	defer c.Close()
	for range 2 {
		become(t, c, nil)
		for _, s := range []*Store{a, b} {
			if r, err := s.Revision(t.Context()); err != nil || r != 0 {
				t.Errorf("%d, %v", r, err)
			}
		}
	}
	if _, err := os.Stat(Marker(dir)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("there is a marker of an empty store: %v", err)
	}
	storetest.Put(t, openAt(t, server, dir), control.Change{Key: storetest.Key("a", plan.Owner{Team: "core"})})
	if r, err := b.Revision(t.Context()); err != nil || r != 1 {
		t.Errorf("%d, %v", r, err)
	}
}

// A marker that cannot be read or written is no reason to believe the store.
func TestMarker(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Valkey)
	dir := t.TempDir()
	s := openAt(t, server, dir)
	storetest.Put(t, s, control.Change{Key: storetest.Key("a", plan.Owner{Team: "core"})})
	beside, err := OpenBeside(t.Context(), client(t, server), "weir", dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = beside.Close() }()
	follow(t, beside, 1)
	if _, err := os.Stat(Marker(dir)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("whoever only looked left a marker: %v", err)
	}
	if err := os.Mkdir(Marker(dir)+".new", 0o700); err != nil {
		t.Fatal(err)
	}
	read := 0
	if _, err := s.Changes(t.Context(), 0, func(*control.Key, *control.Override) error { read++; return nil }); err == nil || !strings.Contains(err.Error(), "cannot be kept") || read != 1 {
		t.Errorf("%v; %d objects were read", err, read)
	}
	if err := os.Remove(Marker(dir) + ".new"); err != nil {
		t.Fatal(err)
	}
	follow(t, s, 1)
	if info, err := os.Stat(Marker(dir)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if err := os.Truncate(Marker(dir), 3); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), client(t, server), "weir", dir); err == nil || !strings.Contains(err.Error(), "is damaged") {
		t.Errorf("%v", err)
	}
}

// While the server is away everything fails in bounded time, and goes on when it is back.
func TestAway(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Valkey, "--appendonly", "yes", "--appendfsync", "always")
	s := openAt(t, server, t.TempDir())
	if doubts := s.Doubts(t.Context()); doubts != "" {
		t.Errorf("doubts in a server that keeps everything: %s", doubts)
	}
	storetest.Put(t, s, control.Change{Key: storetest.Key("a", plan.Owner{Team: "core"})})
	server.Kill()
	for call, err := range calls(t.Context(), s) {
		if err == nil || errors.Is(err, control.ErrLost) || errors.Is(err, control.ErrNotFound) {
			t.Errorf("%s while the server is away: %v", call, err)
		}
	}
	server.Run()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if r, err := s.Revision(t.Context()); err == nil && r == 1 {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("%d, %v", r, err)
		}
	}
	storetest.Put(t, s, control.Change{Key: storetest.Key("b", plan.Owner{Team: "core"})})

	server.Freeze()
	defer server.Thaw()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.Put(ctx, control.Change{Key: storetest.Key("c", plan.Owner{Team: "core"}), HashCheck: []byte("check")}); err == nil || !strings.Contains(err.Error(), "not known whether") {
		t.Errorf("%v", err)
	}
	if r, err := s.Revision(ctx); err == nil {
		t.Errorf("a frozen server answers %d", r)
	}
}

// commands are what a user of the server must be allowed for the control store; the
// operator's guide lists them.
const commands = "+evalsha +eval +info +get +hget +hmget +zrangebylex +zrangebyscore +llen +lrange +lindex +rpush +hset +hdel +setnx +zadd +zrem"

// A user with no more than these commands on the keys of the deployment is enough.
func TestRights(t *testing.T) {
	t.Parallel()
	for _, name := range redistest.Available(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t, name)
			c := client(t, server)
			defer c.Close()
			args := append([]string{"SETUSER", "weir", "on", ">password", "~{weir}:*", "-@all", "+auth", "+hello", "+ping"}, strings.Fields(commands)...)
			if err := c.Do(t.Context(), c.B().Arbitrary("ACL").Args(args...).Build()).Error(); err != nil {
				t.Fatal(err)
			}
			user := connect(t, limits.Server{Addresses: []string{server.Address()}, Username: "weir", Password: "password"})
			if err := limits.CheckServer(t.Context(), user); err != nil {
				t.Error(err)
			}
			s, err := Open(t.Context(), user, "weir", t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = s.Close() }()
			if doubts := s.Doubts(t.Context()); doubts == "" {
				t.Error("the settings were not read")
			}
			k := storetest.Key("a", plan.Owner{Team: "core"})
			k.Revision = storetest.Put(t, s, control.Change{Key: k})
			k.Owner = plan.Owner{Application: "app"}
			k.Secrets[0].Hash = storetest.Hash("another")
			storetest.Put(t, s, control.Change{Key: k, Was: k.Revision})
			storetest.Put(t, s, control.Change{Override: &control.Override{Hash: storetest.Hash("x"), Name: "x", State: plan.StateRevoked}})
			for call, err := range calls(t.Context(), s) {
				if err != nil && !errors.Is(err, control.ErrNotFound) {
					t.Errorf("%s: %v", call, err)
				}
			}
		})
	}
}

func TestDoubts(t *testing.T) {
	t.Parallel()
	s := openAt(t, redistest.Start(t, redistest.Valkey), t.TempDir())
	if doubts := s.Doubts(t.Context()); !strings.Contains(doubts, "appendonly") {
		t.Errorf("%q", doubts)
	}
}

// What somebody else wrote is an error, not fewer keys.
func TestDamage(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Valkey)
	c := client(t, server)
	defer c.Close()
	s := openAt(t, server, t.TempDir())
	for _, name := range []string{"a", "b"} {
		storetest.Put(t, s, control.Change{Key: storetest.Key(name, plan.Owner{Team: "core"})})
	}
	good := image(t, c)
	for what, harm := range map[string]rueidis.Completed{
		"a key is gone":       c.B().Hdel().Key("{weir}:control:keys").Field("a").Build(),
		"a key is no JSON":    c.B().Hset().Key("{weir}:control:keys").FieldValue().FieldValue("a", "1 {").Build(),
		"of a newer version":  c.B().Hset().Key("{weir}:control:keys").FieldValue().FieldValue("a", `1 {"secrets":[{"hash":"00"}],"only_on_sundays":true}`).Build(),
		"another type":        c.B().Set().Key("{weir}:control:keys").Value("x").Build(),
		"an unlikely token":   c.B().Rpush().Key("{weir}:control:history").Element("x").Build(),
		"the list of changes": c.B().Set().Key("{weir}:control:changed").Value("x").Build(),
	} {
		become(t, c, good)
		if err := c.Do(t.Context(), harm).Error(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Changes(t.Context(), 0, func(*control.Key, *control.Override) error { return nil }); err == nil || errors.Is(err, control.ErrNotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func FuzzObjects(f *testing.F) {
	text, err := encodeKey(storetest.Key("a", plan.Owner{Team: "core", Roles: []string{"x"}}))
	if err != nil {
		f.Fatal(err)
	}
	f.Add("1 " + text)
	f.Add(`2 {"secrets":[{"hash":""}]}`)
	f.Add(`3 {"name":"x","state":2}`)
	f.Fuzz(func(t *testing.T, text string) {
		_, _ = decodeOverride(strings.Repeat("00", 32), text)
		_, _ = decodeOverride(text, text)
		_, _ = decodeRecord(1, text)
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
	})
}

func FuzzMarker(f *testing.F) {
	f.Add("1 0123456789abcdef")
	f.Add("0 ")
	f.Add("+1 0123456789abcdef")
	f.Fuzz(func(t *testing.T, text string) {
		if p, ok := parsePlace(text); ok && (p.String() != text || p.revision <= 0 || len(p.token) != 2*tokenSize) {
			t.Errorf("%q is read as %+v", text, p)
		}
	})
}

// BenchmarkFirstLook is what a start of weir costs with a full store.
func BenchmarkFirstLook(b *testing.B) {
	const n = 100_000
	server := redistest.Start(b, redistest.Valkey)
	s := openAt(b, server, b.TempDir())
	for i := range n {
		storetest.Put(b, s, control.Change{Key: storetest.Key(fmt.Sprintf("application-%d-key-%d", i%1000, i), plan.Owner{Application: fmt.Sprint("application-", i%1000)})})
	}
	for b.Loop() {
		f := control.NewFollower(s, plan.NewRing(), nil)
		if err := f.Sync(b.Context()); err != nil {
			b.Fatal(err)
		}
		if got := f.Revision(); got != n {
			b.Fatal(got)
		}
	}
	info, err := s.client.Do(b.Context(), s.client.B().Info().Section("memory").Build()).ToString()
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(info) {
		if text, ok := strings.CutPrefix(line, "used_memory:"); ok {
			used, err := strconv.Atoi(strings.TrimSpace(text))
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(used)/n, "B/key") // with the records of their making
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/n, "µs/key")
}
