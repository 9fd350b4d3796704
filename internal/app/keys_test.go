package app

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weirproxy/weir/control"
	controlredis "github.com/weirproxy/weir/control/redis"
	"github.com/weirproxy/weir/control/sqlite"
	"github.com/weirproxy/weir/internal/config"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/limit/redis/redistest"
)

// site is a machine with a data directory, and configurations with and without a
// limit store.
type site struct {
	dir           string
	alone, shared string // paths
	at            *plan.LimitStore
}

func newSite(t *testing.T, server *redistest.Server, secret string) *site {
	t.Helper()
	s := &site{dir: filepath.Join(t.TempDir(), "data"), at: &plan.LimitStore{Addresses: []string{server.Address()}, Name: "weir", Replicas: 2, Timeout: time.Second}}
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	folder := filepath.Dir(s.dir)
	text := fmt.Sprintf(`
listeners: [{name: main, address: "127.0.0.1:18080"}]
key_hash_secret: {file: %q}
pools: [{name: a, placement: private, endpoints: [{url: "http://127.0.0.1:9"}], model: m, context_window: 1000}]
models: [{name: chat, targets: [{pool: a}], default_max_tokens: 50}]
teams: [{name: research, roles: [user]}]
roles: [{name: user, models: [chat]}]
keys: [{name: tester, hash: "hmac-sha256:%s", team: research}]
`, filepath.Join(folder, "secret"), strings.Repeat("0", 64))
	s.alone, s.shared = filepath.Join(folder, "alone.yaml"), filepath.Join(folder, "shared.yaml")
	for path, text := range map[string]string{
		filepath.Join(folder, "secret"): secret, s.alone: text,
		s.shared: text + fmt.Sprintf("limit_store: {redis: {addresses: [%q], replicas: 2}}\n", server.Address()),
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// open opens the control store as a start with the configuration does.
func (s *site) open(t *testing.T, path string) (control.Store, *plan.Plan, error) {
	t.Helper()
	p, err := config.Load(path, config.Options{DataDir: s.dir, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	store, err := openControl(t.Context(), s.dir, p, controlredis.Open)
	return store, p, err
}

// make makes a key, and disables one of the configuration.
func (s *site) make(t *testing.T, path, name string) {
	t.Helper()
	store, p, err := s.open(t, path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	ring := plan.NewRing()
	p.Stored = ring
	keeper := &control.Keeper{Store: store, Follower: control.NewFollower(store, ring, nil), Plan: func() *plan.Plan { return p }}
	by := control.Actor{Name: "test"}
	if _, _, err := keeper.Create(t.Context(), by, control.New{Name: name, Owner: plan.Owner{Team: "research"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := keeper.SetState(t.Context(), by, "tester", plan.StateDisabled, ""); err != nil {
		t.Fatal(err)
	}
}

// reads holds that a start with the configuration finds this many changes.
func (s *site) reads(t *testing.T, path string, want control.Revision) {
	t.Helper()
	store, _, err := s.open(t, path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	if r, err := store.Revision(t.Context()); err != nil || r != want {
		t.Errorf("revision %d, %v, want %d", r, err, want)
	}
}

func (s *site) refuses(t *testing.T, path, says string) {
	t.Helper()
	store, _, err := s.open(t, path)
	if err == nil {
		_ = store.Close()
	}
	if err == nil || !strings.Contains(err.Error(), says) {
		t.Errorf("%v, want %q", err, says)
	}
}

const hashSecret = "0123456789abcdef0123456789abcdef"

// Keys go from one machine to all replicas, and are never left behind without a word.
func TestKeysMoveToTheLimitStore(t *testing.T) {
	server := redistest.Start(t, redistest.Valkey)
	s := newSite(t, server, hashSecret)
	s.reads(t, s.alone, 0)
	s.reads(t, s.shared, 0) // an empty file holds nothing up
	s.reads(t, s.alone, 0)  // nor does an empty server
	s.make(t, s.alone, "one")
	s.refuses(t, s.shared, "control.db has keys or revocations")

	release, err := lockDataDir(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := ImportKeys(t.Context(), s.shared, s.dir); err == nil || !strings.Contains(err.Error(), "another weir uses it") {
		t.Errorf("while weir runs: %v", err)
	}
	release()
	if _, _, err := ImportKeys(t.Context(), s.alone, s.dir); err == nil || !strings.Contains(err.Error(), "no limit_store") {
		t.Errorf("to nowhere: %v", err)
	}
	other := newSite(t, server, strings.Repeat("another ", 4))
	other.dir = s.dir
	if _, _, err := ImportKeys(t.Context(), other.shared, s.dir); !errors.Is(err, control.ErrHashSecret) {
		t.Errorf("under another secret: %v", err)
	}
	n, aside, err := ImportKeys(t.Context(), s.shared, s.dir)
	if err != nil || n != (control.Imported{Keys: 1, Overrides: 1}) || aside != filepath.Join(s.dir, sqlite.File+imported) || !exists(aside) {
		t.Fatalf("%+v, %q, %v", n, aside, err)
	}
	s.reads(t, s.shared, 2)
	s.refuses(t, s.alone, "the configuration has no limit_store")
	if _, _, err := ImportKeys(t.Context(), s.shared, s.dir); !errors.Is(err, os.ErrNotExist) || exists(filepath.Join(s.dir, sqlite.File)) {
		t.Errorf("again, with nothing to import: %v", err)
	}

	// Another machine that ran alone has a key of its own, which must come too.
	two := newSite(t, server, hashSecret)
	two.make(t, two.alone, "two")
	two.refuses(t, two.shared, "weir key import")
	if n, _, err := ImportKeys(t.Context(), two.shared, two.dir); err != nil || n != (control.Imported{Keys: 1}) {
		t.Fatalf("%+v, %v", n, err)
	}
	two.reads(t, two.shared, 3)

	// To go back to one machine is a decision: what was kept there is not what is here.
	if err := os.Remove(controlredis.Marker(s.dir)); err != nil {
		t.Fatal(err)
	}
	s.refuses(t, s.alone, "control.db: it is missing")
}

// Commands that look at a configuration see the keys that a start would have, or fail as it would.
func TestAttachStoredKeys(t *testing.T) {
	server := redistest.Start(t, redistest.Valkey)
	s := newSite(t, server, hashSecret)
	attach := func(path string) (*plan.Plan, error) {
		p, err := config.Load(path, config.Options{DataDir: s.dir, ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		return p, AttachStoredKeys(t.Context(), p)
	}
	if p, err := attach(s.shared); err != nil || p.Stored != nil {
		t.Errorf("where there was never a store: %v", err)
	}
	s.make(t, s.shared, "one")
	p, err := attach(s.shared)
	if err != nil || p.Stored == nil || p.Stored.Census(time.Now())["active"] != 1 {
		t.Errorf("%v, %+v", err, p.Stored)
	}
	if _, err := attach(s.alone); err == nil || !strings.Contains(err.Error(), "no limit_store") {
		t.Errorf("%v", err)
	}
	server.Kill()
	if _, err := attach(s.shared); err == nil {
		t.Error("the server is away, and its keys are taken for none")
	}
	server.Run()
	if _, err := attach(s.shared); !errors.Is(err, control.ErrLost) {
		t.Errorf("the server lost them: %v", err)
	}
}
