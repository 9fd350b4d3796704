package config

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

// example loads an example as a user would, with every variable set.
func example(t *testing.T, name string, env func(string) (string, bool)) *plan.Plan {
	t.Helper()
	o := options(t.TempDir(), nil)
	o.Getenv = env
	o.Warn = func(f Fault) { t.Errorf("warning: %s", f) }
	p, err := Load(filepath.Join("../../examples", name, "weir.yaml"), o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func noEnv(string) (string, bool) { return "", false }

func anyEnv(name string) (string, bool) { return "made-up-value-of-" + name, true }

func TestExamplesAreValid(t *testing.T) {
	files, err := filepath.Glob("../../examples/*/weir.yaml")
	if err != nil || len(files) < 2 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		name := filepath.Base(filepath.Dir(file))
		t.Run(name, func(t *testing.T) {
			example(t, name, anyEnv)
			if _, err := os.Stat(filepath.Join(filepath.Dir(file), "README.md")); err != nil {
				t.Error(err)
			}
		})
	}
}

// The quickstart works offline and without any environment.
func TestQuickstart(t *testing.T) {
	p := example(t, "quickstart", noEnv)
	if p.KeyList[0].Name != "demo" || p.KeyList[0].Shown == "" {
		t.Errorf("the first key is not one to show: %+v", p.KeyList[0])
	}
	simulated := map[string]bool{}
	for _, s := range p.Simulators {
		simulated[s.Address] = true
	}
	for _, pool := range p.Pools {
		if !pointsTo(pool, "127.0.0.1:18001") && !pointsTo(pool, "127.0.0.1:18002") {
			t.Errorf("pool %s has no simulator", pool.Name)
		}
	}
	if len(simulated) != 2 {
		t.Errorf("simulators %v", p.Simulators)
	}
	for _, name := range []string{"chat", "gpt-4o", "gpt-4o-mini", "chat-long", "embed"} {
		if m := p.Models[name]; m == nil || !mayCall(p.KeyList[0], m) {
			t.Errorf("demo cannot call %s", name)
		}
	}
}

func mayCall(k *plan.Key, m *plan.Model) bool {
	return slices.ContainsFunc(k.Roles, func(r *plan.Role) bool { return r.MayCall(m) })
}

// TestBank holds the scenario's promises: who may call and reach what.
func TestBank(t *testing.T) {
	p := example(t, "bank", anyEnv)
	got := map[string][]string{}
	for _, k := range p.KeyList {
		for _, m := range p.ModelList {
			if mayCall(k, m) {
				got[k.Name] = append(got[k.Name], m.Name)
			}
		}
		for _, pool := range p.Pools {
			if pool.Placement == ai.Public && slices.ContainsFunc(k.Roles, func(r *plan.Role) bool { return r.MayReach(pool) }) {
				got[k.Name] = append(got[k.Name], "egress:"+pool.Name)
			}
		}
	}
	want := map[string][]string{
		"order-desk":       {"chat", "chat-long"},
		"model-validation": {"chat", "chat-long", "risk"},
		"market-reports":   {"chat", "chat-long", "egress:qwen-api"},
		"catalogue":        {"chat", "chat-long"},
		"statements":       {"batch", "chat", "chat-long", "egress:kimi-api", "egress:qwen-api", "egress:siliconflow"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"authorization"}, p.CredentialHeaders()); diff != "" {
		t.Error(diff)
	}
	if names := slices.Sorted(maps.Keys(p.Models)); len(names) != 6 {
		t.Errorf("models %v", names)
	}
}

// The bank's rules send the right requests to the right pools.
func TestBankRules(t *testing.T) {
	p := example(t, "bank", anyEnv)
	noon := time.Date(2026, 3, 2, 4, 0, 0, 0, time.UTC)      // 12:00 in Shanghai
	midnight := time.Date(2026, 3, 2, 17, 0, 0, 0, time.UTC) // 01:00 the next day
	public := map[string]string{"x-data-class": "public"}
	for _, tt := range []struct {
		name, key, model string
		tokens           int64
		headers          map[string]string
		now              time.Time
		rule             string
	}{
		{"plain", "order-desk", "chat", 100, nil, noon, ""},
		{"long", "order-desk", "chat", 70_000, nil, noon, "long-context"},
		{"marked public, no role", "catalogue", "chat", 100, public, noon, ""},
		{"role, not marked", "market-reports", "chat", 100, nil, noon, ""},
		{"role and marked", "market-reports", "chat", 100, public, noon, "gated-egress"},
		{"by day", "statements", "batch", 100, nil, noon, ""},
		{"at night", "statements", "batch", 100, nil, midnight, "at-night"},
	} {
		key := p.KeyList[slices.IndexFunc(p.KeyList, func(k *plan.Key) bool { return k.Name == tt.key })]
		f := plan.Facts{
			Principal: key.Principal, Model: tt.model, Kind: ai.KindChat, Headers: tt.headers, Now: tt.now,
			InputTokens: func() int64 { return tt.tokens },
		}
		got := ""
		for _, r := range p.Models[tt.model].Rules {
			holds, err := r.When.Holds(&f)
			if err != nil {
				t.Fatalf("%s: %s: %v", tt.name, r.Name, err)
			}
			if holds {
				got = r.Name
				break
			}
		}
		if got != tt.rule {
			t.Errorf("%s: rule %q, want %q", tt.name, got, tt.rule)
		}
	}
}

// TestMesh holds who is who behind the mesh's gateway.
func TestMesh(t *testing.T) {
	p := example(t, "mesh", anyEnv)
	issuer, ok := p.IssuerOf("https://idp.example.org/realms/staff")
	if !ok {
		t.Fatal("no issuer")
	}
	claims := map[string]any{"sub": "alice", "scope": "openid llm", "department": "trading", "groups": []any{"analyst", "staff"}}
	caller, user, err := issuer.Binding.Bind(claims)
	if err != nil || user != "alice" || caller.Principal.Team != "trading" || !mayCall(caller, p.Models["risk"]) || mayCall(caller, p.Models["chat"]) {
		t.Errorf("%+v, %q, %v", caller, user, err)
	}
	for name, change := range map[string]any{"scope": "openid", "department": "partners", "groups": []any{"staff"}} {
		other := maps.Clone(claims)
		other[name] = change
		if caller, _, err := issuer.Binding.Bind(other); err == nil {
			t.Errorf("%s: %v is bound to %+v", name, change, caller.Principal)
		}
	}
	if caller, ok := p.Workloads.Find("spiffe://example.org/ns/notebooks/sa/alice"); !ok || caller.Principal.Team != "research" {
		t.Errorf("%+v", caller)
	}
}
