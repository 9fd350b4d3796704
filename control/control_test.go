package control_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weirproxy/weir/control"
	"github.com/weirproxy/weir/control/sqlite"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

var update = flag.Bool("update", false, "renew the golden files")

var seeds atomic.Int32

var noon = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// process is one weir on a data directory: store, ring, follower and keeper.
type process struct {
	*control.Keeper
	plan  *plan.Plan
	ring  *plan.Ring
	clock time.Time
}

func start(t testing.TB, dir string) *process {
	t.Helper()
	store, err := sqlite.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	p := &process{ring: plan.NewRing(), clock: noon}
	p.plan = newPlan(p.ring)
	p.Keeper = &control.Keeper{
		Store: store, Follower: control.NewFollower(store, p.ring, slog.New(slog.DiscardHandler)), Plan: func() *plan.Plan { return p.plan },
		Now: func() time.Time { return p.clock }, Rand: rand.NewChaCha8([32]byte{byte(seeds.Add(1))}), // no process makes the keys of another
	}
	p.Follower.Now = p.Now
	if err := control.CheckHashSecret(t.Context(), store, p.plan); err != nil {
		t.Fatal(err)
	}
	if err := p.Follower.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.ring.Bind(p.plan)
	return p
}

func newPlan(ring *plan.Ring) *plan.Plan {
	p := &plan.Plan{Stored: ring, Keys: map[plan.KeyHash]*plan.Key{}, Directory: plan.Directory{
		Teams:        map[string][]string{"core": {"user"}, "empty": nil},
		Applications: map[string]plan.Application{"bot": {Team: "core"}},
	}, Roles: map[string]*plan.Role{"user": {Name: "user"}, "staff": {Name: "staff"}}}
	p.SetHashSecret([]byte("a secret of tests"))
	static := &plan.Key{Name: "static", Hash: p.HashToken("static-token"), Principal: ai.Principal{Key: "static", Team: "core", Roles: []string{"user"}}}
	p.KeyList, p.Keys[static.Hash] = []*plan.Key{static}, static
	return p
}

var root = control.Actor{Name: "socket:uid=0", Roles: []string{"operator"}}

func (p *process) create(t testing.TB, n control.New) string {
	t.Helper()
	if n.Owner.Team == "" && n.Owner.Application == "" {
		n.Owner.Team = "core"
	}
	_, token, err := p.Create(t.Context(), root, n)
	if err != nil || plan.Malformed(token) {
		t.Fatalf("%q: %v", token, err)
	}
	return token
}

func (p *process) wants(t *testing.T, token string, want ai.Reason) {
	t.Helper()
	if _, got := p.plan.KeyByToken(token, p.clock); got != want {
		t.Errorf("%.9s…: %q, want %q", token, got, want)
	}
}

// A key's life, and that all of it is there again after a restart.
func TestLife(t *testing.T) {
	dir := t.TempDir()
	p := start(t, dir)
	first := p.create(t, control.New{Name: "k", Owner: plan.Owner{Application: "bot", Roles: []string{"staff", "staff"}}, Expires: noon.Add(48 * time.Hour), Note: "for a try"})
	p.wants(t, first, "")

	_, second, err := p.Rotate(t.Context(), root, "k", time.Hour, time.Time{})
	if err != nil || second == first {
		t.Fatal(err)
	}
	for _, again := range []bool{false, true} {
		if again {
			p = start(t, dir)
		}
		p.clock = noon.Add(59 * time.Minute)
		p.wants(t, first, "")
		p.wants(t, second, "")
		p.clock = noon.Add(time.Hour)
		p.wants(t, first, ai.ReasonKeyExpired)
		p.wants(t, second, "")
		p.clock = noon.Add(48 * time.Hour)
		p.wants(t, second, ai.ReasonKeyExpired)
	}
	if _, _, err := p.Rotate(t.Context(), root, "k", 0, time.Time{}); !errors.Is(err, control.ErrState) {
		t.Errorf("rotated after it expired: %v", err)
	}
	_, third, err := p.Rotate(t.Context(), root, "k", 0, noon.Add(96*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	p.wants(t, second, ai.ReasonKeyExpired)
	p.wants(t, third, "")
	for _, step := range []struct {
		state plan.State
		want  ai.Reason
	}{{plan.StateDisabled, ai.ReasonKeyDisabled}, {plan.StateActive, ""}, {plan.StateRevoked, ai.ReasonKeyRevoked}} {
		if _, err := p.SetState(t.Context(), root, "k", step.state, "a try"); err != nil {
			t.Fatal(err)
		}
		p.wants(t, third, step.want)
	}
	p = start(t, dir)
	p.wants(t, third, ai.ReasonKeyRevoked)
	p.wants(t, first, ai.ReasonKeyRevoked)
	for _, state := range []plan.State{plan.StateActive, plan.StateDisabled} {
		if _, err := p.SetState(t.Context(), root, "k", state, ""); !errors.Is(err, control.ErrState) {
			t.Errorf("back from revoked: %v", err)
		}
	}
	if _, _, err := p.Rotate(t.Context(), root, "k", 0, time.Time{}); !errors.Is(err, control.ErrState) {
		t.Errorf("rotated after it was revoked: %v", err)
	}
	if v, err := p.KeyBySecret(t.Context(), first); err != nil || v.Name != "k" || v.Refused != ai.ReasonKeyRevoked {
		t.Errorf("by the first secret: %+v, %v", v, err)
	}
	checkAudit(t, p, "life")
}

// checkAudit compares the audit with a golden file, and holds that no key is in it.
func checkAudit(t *testing.T, p *process, name string) {
	t.Helper()
	list, err := p.Store.Audit(t.Context(), control.AuditFilter{}, 100)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	for _, r := range slices.Backward(list) {
		fmt.Fprintf(&out, "%d %s %s %v %s %s [%s] -> [%s] %s %q\n", r.ID, r.Time.Format(time.RFC3339), r.Actor, r.Roles, r.Action, r.Object, r.Before, r.After, r.Outcome, r.Detail)
	}
	if strings.Contains(out.String(), "weir_") {
		t.Error("a key is in the audit")
	}
	file := filepath.Join("testdata", "audit-"+name+".txt")
	if *update {
		if err := os.WriteFile(file, out.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if diff := cmp.Diff(string(want), out.String()); err != nil || diff != "" {
		t.Errorf("%v, -want +got:\n%s", err, diff)
	}
}

// A key of the file is ended by its hash, whatever the file calls it.
func TestOverrides(t *testing.T) {
	dir := t.TempDir()
	p := start(t, dir)
	p.wants(t, "static-token", "")
	for _, step := range []struct {
		state plan.State
		want  ai.Reason
	}{{plan.StateDisabled, ai.ReasonKeyDisabled}, {plan.StateActive, ""}, {plan.StateRevoked, ai.ReasonKeyRevoked}} {
		v, err := p.SetState(t.Context(), root, "static", step.state, "found in a log")
		if err != nil || v.Refused != step.want || !v.Static {
			t.Fatalf("%+v, %v", v, err)
		}
		p.wants(t, "static-token", step.want)
	}
	if _, err := p.SetState(t.Context(), root, "static", plan.StateActive, ""); !errors.Is(err, control.ErrState) {
		t.Errorf("back from revoked: %v", err)
	}
	if _, _, err := p.Rotate(t.Context(), root, "static", 0, time.Time{}); !errors.Is(err, control.ErrState) {
		t.Errorf("rotated: %v", err)
	}
	p = start(t, dir)
	p.plan.KeyList[0].Name = "renamed"
	p.wants(t, "static-token", ai.ReasonKeyRevoked)
	if v, err := p.Key(t.Context(), "renamed"); err != nil || v.Refused != ai.ReasonKeyRevoked {
		t.Errorf("under another name: %+v, %v", v, err)
	}
}

func TestCreateRefuses(t *testing.T) {
	p := start(t, t.TempDir())
	p.create(t, control.New{Name: "taken"})
	team := plan.Owner{Team: "core"}
	for name, tt := range map[string]struct {
		n    control.New
		want error
		says string
	}{
		"no name":        {control.New{Owner: team}, control.ErrInvalid, "name"},
		"upper case":     {control.New{Name: "Taken", Owner: team}, control.ErrInvalid, "name"},
		"a line break":   {control.New{Name: "a\nb", Owner: team}, control.ErrInvalid, "name"},
		"long":           {control.New{Name: strings.Repeat("a", 64), Owner: team}, control.ErrInvalid, "name"},
		"taken":          {control.New{Name: "taken", Owner: team}, control.ErrExists, "taken"},
		"of the file":    {control.New{Name: "static", Owner: team}, control.ErrExists, "in the configuration"},
		"nobody's":       {control.New{Name: "n"}, control.ErrInvalid, "exactly one"},
		"of two":         {control.New{Name: "n", Owner: plan.Owner{Team: "core", Application: "bot"}}, control.ErrInvalid, "exactly one"},
		"unknown team":   {control.New{Name: "n", Owner: plan.Owner{Team: "nobody"}}, control.ErrInvalid, "team nobody"},
		"unknown role":   {control.New{Name: "n", Owner: plan.Owner{Team: "core", Roles: []string{"king"}}}, control.ErrInvalid, "role king"},
		"no role at all": {control.New{Name: "n", Owner: plan.Owner{Team: "empty"}}, control.ErrInvalid, "roles"},
		"expired":        {control.New{Name: "n", Owner: team, Expires: noon}, control.ErrInvalid, "expire_time"},
		"for ever":       {control.New{Name: "n", Owner: team, Expires: noon.AddDate(100, 0, 0)}, control.ErrInvalid, "2100"},
		"a novel":        {control.New{Name: "n", Owner: team, Note: strings.Repeat("a", 257)}, control.ErrInvalid, "note"},
		"an escape":      {control.New{Name: "n", Owner: team, Note: "\x1b[2J"}, control.ErrInvalid, "note"},
		"a key":          {control.New{Name: "n", Owner: team, Note: "old: weir_" + strings.Repeat("a", 38)}, control.ErrInvalid, "hold a key"},
	} {
		_, token, err := p.Create(t.Context(), root, tt.n)
		if !errors.Is(err, tt.want) || !strings.Contains(fmt.Sprint(err), tt.says) || token != "" {
			t.Errorf("%s: %q, %v; want %v that says %q", name, token, err, tt.want, tt.says)
		}
	}
	if list, _, err := p.Keys(t.Context(), control.Query{Limit: 10}); err != nil || len(list) != 2 {
		t.Errorf("%d keys, %v", len(list), err)
	}
}

// What a stored key names can go from the configuration, and come back.
func TestOrphans(t *testing.T) {
	p := start(t, t.TempDir())
	token := p.create(t, control.New{Name: "k", Owner: plan.Owner{Application: "bot", Roles: []string{"staff"}}})
	delete(p.plan.Roles, "staff")
	if got := p.ring.Bind(p.plan); !cmp.Equal(got, []plan.Orphans{{Gone: "role staff", Keys: 1}}) {
		t.Errorf("%+v", got)
	}
	p.wants(t, token, ai.ReasonKeyOrphaned)
	list, _, err := p.Keys(t.Context(), control.Query{Status: "key_orphaned", Limit: 10})
	if err != nil || len(list) != 1 || list[0].Gone != "role staff" {
		t.Errorf("%+v, %v", list, err)
	}
	p.plan.Roles["staff"] = &plan.Role{Name: "staff"}
	p.ring.Bind(p.plan)
	p.wants(t, token, "")
}

func TestPages(t *testing.T) {
	p := start(t, t.TempDir())
	for i := range 25 {
		n := control.New{Name: fmt.Sprintf("s%02d", i), Owner: plan.Owner{Team: "core"}}
		if i%5 == 0 {
			n.Owner = plan.Owner{Application: "bot", Roles: []string{"user"}}
		}
		p.create(t, n)
	}
	if _, err := p.SetState(t.Context(), root, "s07", plan.StateDisabled, ""); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		q    control.Query
		want int
	}{
		"all":                 {control.Query{}, 26},
		"of the team":         {control.Query{Team: "core"}, 26},
		"of the application":  {control.Query{Application: "bot"}, 5},
		"of both":             {control.Query{Application: "bot", Team: "core"}, 5},
		"of both, apart":      {control.Query{Application: "bot", Team: "empty"}, 0},
		"disabled":            {control.Query{Status: "key_disabled"}, 1},
		"active":              {control.Query{Status: "active"}, 25},
		"of a team with none": {control.Query{Team: "empty"}, 0},
	} {
		var names []string
		for more := true; more; {
			var page []control.View
			var err error
			tt.q.Limit = 4
			if page, more, err = p.Keys(t.Context(), tt.q); err != nil || len(page) > 4 {
				t.Fatalf("%s: %d keys, %v", name, len(page), err)
			}
			for _, v := range page {
				names = append(names, v.Name)
				tt.q.After = v.Name
			}
		}
		if len(names) != tt.want || !slices.IsSorted(names) || len(slices.Compact(names)) != tt.want {
			t.Errorf("%s: %v", name, names)
		}
	}
}

// Of two who change one key at the same time both changes hold, or one is told.
func TestConcurrentChanges(t *testing.T) {
	dir := t.TempDir()
	a, b := start(t, dir), start(t, dir)
	a.create(t, control.New{Name: "k"})
	var done sync.WaitGroup
	var mu sync.Mutex
	var tokens []string
	for i := range 6 {
		done.Go(func() {
			p := []*process{a, b}[i%2]
			if i >= 2 { // one stream of randomness has one reader at a time
				if _, err := p.SetState(t.Context(), root, "k", plan.State(i%2), ""); err != nil && !errors.Is(err, control.ErrConflict) {
					t.Error(err)
				}
				return
			}
			_, token, err := p.Rotate(t.Context(), root, "k", time.Hour, time.Time{})
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			tokens = append(tokens, token)
			mu.Unlock()
		})
	}
	done.Wait()
	for _, p := range []*process{a, b} {
		if err := p.Follower.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := p.SetState(t.Context(), root, "k", plan.StateActive, ""); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []*process{a, b} {
		if err := p.Follower.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, token := range tokens {
			p.wants(t, token, "")
		}
	}
}

// A rotation that is repeated does not pile up secrets without end.
func TestRotationsAreBounded(t *testing.T) {
	p := start(t, t.TempDir())
	p.create(t, control.New{Name: "k"})
	n := 1
	for ; n < 20; n++ {
		if _, _, err := p.Rotate(t.Context(), root, "k", time.Hour, time.Time{}); err != nil {
			if !errors.Is(err, control.ErrState) {
				t.Fatal(err)
			}
			break
		}
	}
	if n != 8 {
		t.Errorf("%d secrets open", n)
	}
	p.clock = noon.Add(31*24*time.Hour + time.Hour)
	v, _, err := p.Rotate(t.Context(), root, "k", time.Hour, time.Time{})
	if err != nil || len(v.Secrets) != 2 {
		t.Errorf("%d secrets are kept: %v", len(v.Secrets), err)
	}
	for _, overlap := range []time.Duration{-1, 91 * 24 * time.Hour} {
		if _, _, err := p.Rotate(t.Context(), root, "k", overlap, time.Time{}); !errors.Is(err, control.ErrInvalid) {
			t.Errorf("overlap %s: %v", overlap, err)
		}
	}
}

// A revocation by one process is in force in another on the same store within two
// seconds: measured from before the call that revokes.
func TestRevocationReachesOthers(t *testing.T) {
	dir := t.TempDir()
	a, b := start(t, dir), start(t, dir)
	ctx, stop := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() { _ = b.Follower.Run(ctx) })
	defer done.Wait()
	defer stop()
	var slowest time.Duration
	for i := range 5 {
		token := a.create(t, control.New{Name: fmt.Sprintf("k%d", i)})
		await(t, func() bool { _, reason := b.plan.KeyByToken(token, noon); return reason == "" })
		begin := time.Now()
		if _, err := a.SetState(t.Context(), root, fmt.Sprintf("k%d", i), plan.StateRevoked, ""); err != nil {
			t.Fatal(err)
		}
		a.wants(t, token, ai.ReasonKeyRevoked) // at once where it was made
		await(t, func() bool { _, reason := b.plan.KeyByToken(token, noon); return reason == ai.ReasonKeyRevoked })
		slowest = max(slowest, time.Since(begin))
	}
	t.Logf("slowest of 5 revocations: %s", slowest.Round(time.Millisecond))
	if slowest > 2*time.Second {
		t.Errorf("%s until a revocation was in force", slowest)
	}
}

func await(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not within 10 s")
		}
	}
}

// Another secret of key hashes would make every key and revocation void.
func TestHashSecretIsHeld(t *testing.T) {
	dir := t.TempDir()
	p := start(t, dir)
	other := newPlan(p.ring)
	other.SetHashSecret([]byte("another secret of tests"))
	if err := control.CheckHashSecret(t.Context(), p.Store, other); err != nil {
		t.Errorf("while the store is empty: %v", err)
	}
	p.create(t, control.New{Name: "k"})
	if err := control.CheckHashSecret(t.Context(), p.Store, other); !errors.Is(err, control.ErrHashSecret) {
		t.Errorf("with a key: %v", err)
	}
	right := p.plan
	p.plan = other
	if _, token, err := p.Create(t.Context(), root, control.New{Name: "n", Owner: plan.Owner{Team: "core"}}); !errors.Is(err, control.ErrHashSecret) || token != "" {
		t.Errorf("a key under another secret: %q, %v", token, err)
	}
	p.plan = right
	if err := control.CheckHashSecret(t.Context(), p.Store, p.plan); err != nil {
		t.Errorf("the right one: %v", err)
	}
}

// A key of the file must not have the name of a stored one.
func TestClash(t *testing.T) {
	p := start(t, t.TempDir())
	p.create(t, control.New{Name: "k"})
	if err := p.Clash(t.Context(), p.plan); err != nil {
		t.Error(err)
	}
	p.plan.KeyList[0].Name = "k"
	if err := p.Clash(t.Context(), p.plan); err == nil || !strings.Contains(err.Error(), "keys[0].name") {
		t.Errorf("%v", err)
	}
}
