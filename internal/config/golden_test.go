package config

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

var update = flag.Bool("update", false, "rewrite the expectations in testdata")

// TestGolden loads each testdata/*.txtar: weir.yaml and the files beside it; env
// holds the environment. The file want is what comes out: warnings, then the
// faults or a summary of the plan.
func TestGolden(t *testing.T) {
	cases, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(cases) == 0 {
		t.Fatal("no cases", err)
	}
	for _, file := range cases {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := outcome(t, archive)
			want := ""
			for i, f := range archive.Files {
				if f.Name != "want" {
					continue
				}
				want = string(f.Data)
				archive.Files[i].Data = []byte(got)
			}
			if *update {
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// outcome loads the archive's configuration and writes down what comes out.
func outcome(t *testing.T, archive *txtar.Archive) string {
	t.Helper()
	dir := t.TempDir()
	env := map[string]string{}
	for _, f := range archive.Files {
		switch f.Name {
		case "want":
		case "env":
			for line := range strings.Lines(string(f.Data)) {
				name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
				env[name] = value
			}
		default:
			path := filepath.Join(dir, f.Name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, f.Data, 0o600)); err != nil {
				t.Fatal(err)
			}
		}
	}
	var out strings.Builder
	o := options(dir, env)
	o.Warn = func(f Fault) { fmt.Fprintf(&out, "warning: %s\n", f) }
	p, err := Load(filepath.Join(dir, "weir.yaml"), o)
	if err != nil {
		var faults Faults
		if !errors.As(err, &faults) || p != nil {
			t.Fatalf("plan %v with error %v", p, err)
		}
		fmt.Fprintln(&out, err)
	} else {
		summarize(&out, p)
	}
	return strings.ReplaceAll(out.String(), dir+"/", "")
}

// options are such that the same configuration gives the same plan.
func options(dir string, env map[string]string) Options {
	return Options{
		DataDir: filepath.Join(dir, "data"),
		Getenv:  func(name string) (string, bool) { v, ok := env[name]; return v, ok },
		Rand:    rand.NewChaCha8([32]byte{1}),
		Now:     func() time.Time { return time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC) },
	}
}

// summarize writes a plan as text, one object a line.
// priceText is what a pool costs: input, cached input and output, the other classes
// where they cost something else, and what is not the default.
func priceText(p *plan.Pool) string {
	var b strings.Builder
	for i, period := range p.Prices {
		if i > 0 {
			fmt.Fprintf(&b, " from %s ", period.From.Format(time.RFC3339))
		}
		of := period.Price
		fmt.Fprintf(&b, "{%d %d %d", of.Input, of.CachedInput, of.Output)
		for _, c := range []struct {
			name           string
			price, nearest ai.NanoUSD
		}{
			{"write", of.CacheWrite, of.Input}, {"audio-in", of.AudioInput, of.Input}, {"image-in", of.ImageInput, of.Input},
			{"reasoning", of.Reasoning, of.Output}, {"audio-out", of.AudioOutput, of.Output}, {"image-out", of.ImageOutput, of.Output},
			{"request", of.Request, 0},
		} {
			if c.price != c.nearest {
				fmt.Fprintf(&b, " %s=%d", c.name, c.price)
			}
		}
		b.WriteString("}")
	}
	if p.Priced && p.PriceAt(time.Time{}).Free() {
		b.WriteString(" free")
	}
	if p.BillsAbandoned != (p.Placement == ai.Public) {
		fmt.Fprintf(&b, " bills-abandoned=%v", p.BillsAbandoned)
	}
	return b.String()
}

func summarize(out *strings.Builder, p *plan.Plan) {
	for _, l := range p.Listeners {
		fmt.Fprintf(out, "listener %s %s tls=%v\n", l.Name, l.Address, l.TLS != nil)
	}
	fmt.Fprintf(out, "admin %s data %s\n", p.Admin, p.DataDir)
	for _, l := range p.Pools {
		fmt.Fprintf(out, "pool %s %s %s %s%s %v model=%s window=%d price=%s connect=%v ca=%q name=%q",
			l.Name, l.Adapter.Name, l.Placement, l.Scheme, l.BasePath, l.Endpoints, l.Model, l.ContextWindow, priceText(l), l.ConnectTimeout, l.CAFile, l.ServerName)
		if m := l.Metrics; m.Path != "" {
			fmt.Fprintf(out, " metrics=:%d%s/%v/%v", m.Port, m.Path, m.Interval, m.Timeout)
		}
		if h := l.HealthCheck; h.Path != "" {
			fmt.Fprintf(out, " health=%s/%v/%v/%d/%d", h.Path, h.Interval, h.Timeout, h.UnhealthyAfter, h.HealthyAfter)
		}
		if e := l.Ejection; e.After > 0 && len(l.Endpoints) > 1 {
			fmt.Fprintf(out, " ejects=%d/%v/%v", e.After, e.For, e.AtMost)
		}
		if l.SlowStart > 0 {
			fmt.Fprintf(out, " slow-start=%v", l.SlowStart)
		}
		if l.StreamIdle > 0 {
			fmt.Fprintf(out, " stream-idle=%v", l.StreamIdle)
		}
		if l.PrefixLoad > 0 {
			fmt.Fprintf(out, " prefix-load=%d%%", l.PrefixLoad)
		}
		if l.Saturation != nil {
			fmt.Fprintf(out, " saturated=%+v", *l.Saturation)
		}
		if l.Credential != nil {
			fmt.Fprintf(out, " credential=%q:%q", l.Credential.Header, l.Credential.Value)
		}
		fmt.Fprintln(out)
	}
	for _, w := range p.Webhooks {
		fmt.Fprintf(out, "webhook %s signed=%v\n", w.URL, len(w.Secret) > 0)
	}
	if s := p.Store; s != nil {
		fmt.Fprintf(out, "limit store %s at %v sentinel=%q cluster=%v user=%q password=%q tls=%v replicas=%d allowance=%d timeout=%v\n",
			s.Name, s.Addresses, s.SentinelMaster, s.Cluster, s.Username, s.Password, s.TLS != nil, s.Replicas, s.Allowance, s.Timeout)
	}
	for _, m := range p.ModelList {
		fmt.Fprintf(out, "model %s %q max=%d first=%v attempt=%v\n", m.Name, m.Aliases, m.DefaultMaxTokens, m.FirstTokenTimeout, m.AttemptTimeout)
		if m.Batch {
			fmt.Fprintf(out, "  batch\n")
		}
		if m.MaxAttempts != 4 {
			fmt.Fprintf(out, "  attempts=%d\n", m.MaxAttempts)
		}
		if r := m.Rollout; r != nil {
			fmt.Fprintf(out, "  rollout %s -> %s sticky=%q %+v %+v\n", r.From.Name, r.To.Name, r.Sticky, r.Steps, r.Judge)
		}
		for _, r := range m.Rules {
			fmt.Fprintf(out, "  %s when %s ->%s\n", r.Name, r.Source, steps(r.Targets)+refuses(r.RefuseEgress))
		}
		fmt.Fprintf(out, "  default ->%s%s\n", steps(m.Targets), refuses(m.RefuseEgress))
	}
	fmt.Fprintf(out, "names %q\n", slices.Sorted(maps.Keys(p.Models)))
	for _, name := range slices.Sorted(maps.Keys(p.Roles)) {
		r := p.Roles[name]
		fmt.Fprintf(out, "role %s all=%v models=%v pools=%v egress=%v %v endpoints=%v denied=%b context=%d output=%d hours=%s\n",
			name, r.AllModels, r.Models, r.Pools, r.AllEgress, r.EgressPools, r.Endpoints, r.Denied, r.MaxContext, r.MaxOutput, hours(r.Hours))
	}
	for _, k := range p.KeyList {
		fmt.Fprintf(out, "key %s app=%q team=%q roles=%v disabled=%v shown=%q grants=%v\n",
			k.Name, k.Principal.Application, k.Principal.Team, k.Principal.Roles, k.Disabled, k.Shown, roleNames(k.Roles))
	}
	for _, name := range slices.Sorted(maps.Keys(p.Calendars)) {
		k := p.Calendars[name]
		fmt.Fprintf(out, "calendar %s %s hours=%s dates=%v except=%v\n", name, k.Zone, hours(k.Hours), k.Dates, k.Except)
	}
	for _, l := range p.Limits {
		fmt.Fprintf(out, "limit %s %d %s per %s zone=%v organisation=%v key=%v application=%v team=%v user=%v model=%v pool=%v organisations=%v teams=%v applications=%v keys=%v models=%v pools=%v\n",
			l.Name, l.Amount, l.Unit, l.Span(), l.Zone, l.PerOrganisation, l.PerKey, l.PerApplication, l.PerTeam, l.PerUser, l.PerModel, l.PerPool,
			names(l.Organisations), names(l.Teams), names(l.Applications), names(l.Keys), names(l.Models), names(l.Pools))
		fmt.Fprintf(out, "  breach %q wait=%v breaker=%v alerts=%v", l.OnBreach, l.QueueWait, l.Breaker, l.AlertAt)
		for _, p := range l.DowngradeTo {
			fmt.Fprintf(out, " -> %s", p.Name)
		}
		fmt.Fprintln(out)
	}
	fmt.Fprintf(out, "modes %v bounds %+v usage %+v\n", p.Modes, p.Bounds, p.Usage)
	if len(p.Doctor.Proxies) > 0 || p.Doctor.Interval != 30*time.Second {
		fmt.Fprintf(out, "doctor every %s %+v\n", p.Doctor.Interval, p.Doctor.Proxies)
	}
	for _, s := range p.Simulators {
		fmt.Fprintf(out, "simulator %s %s %s %v\n", s.Name, s.Address, s.Profile, s.Models)
	}
}

func roleNames(roles []*plan.Role) (names []string) {
	for _, r := range roles {
		names = append(names, r.Name)
	}
	return names
}

func refuses(refuse bool) string {
	if refuse {
		return " or refused"
	}
	return ""
}

func hours(h *plan.Hours) string {
	if h == nil {
		return "always"
	}
	return h.String()
}

func steps(list []plan.Step) string {
	var b strings.Builder
	for _, s := range list {
		b.WriteByte(' ')
		for i, choice := range s.Choices {
			if i > 0 {
				b.WriteByte('|')
			}
			fmt.Fprintf(&b, "%s*%d", choice.Pool.Name, choice.Weight)
		}
		if s.Sticky != "" {
			fmt.Fprintf(&b, " sticky by %s", s.Sticky)
		}
		if s.By != plan.ByWeight {
			fmt.Fprintf(&b, " by %s", [...]string{"weight", "price", "first_token", "load"}[s.By])
		}
	}
	return b.String()
}

func names(set map[string]bool) []string { return slices.Sorted(maps.Keys(set)) }
