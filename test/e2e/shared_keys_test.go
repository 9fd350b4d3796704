package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/simulate"
	"github.com/weirproxy/weir/limit/redis/redistest"
)

// pair is two replicas over one store, each with an Envoy that asks no other.
type pair struct {
	t        *testing.T
	store    *redistest.Server
	replicas [2]*operated
}

func newPair(t *testing.T, edits ...string) *pair {
	t.Helper()
	p := &pair{t: t, store: redistest.Start(t, redistest.Valkey)}
	b, keys := newBackend(t, simulate.Options{}), deploymentSecrets(t)
	config := edited(t, strings.Replace(deploymentConfig, "replicas: 3", "replicas: 2, when_away: allowance, allowance_percent: 50", 1), edits...)
	copy(p.replicas[:], serveReplicas(t, len(p.replicas), func(int) (string, string, []string) {
		listener := fmt.Sprintf("127.0.0.1:%d", freePort(t))
		text := strings.NewReplacer("%LISTEN%", listener, "%STORE%", p.store.Address(), "%KEYS%", keys, "%A%", b.url,
			"%AMOUNT%", "1000000000", "%DEADLINE%", "60s").Replace(config)
		return listener, text, []string{"--listen", fmt.Sprintf("127.0.0.1:%d", freePort(t))}
	}))
	for _, o := range p.replicas {
		eventually(t, 20*time.Second, o.notReady)
		o.startEnvoy(o.flags[3])
	}
	return p
}

// waits waits until each replica answers the token so, and tells how long it took.
func (p *pair) waits(token string, want int) time.Duration {
	p.t.Helper()
	begin := time.Now()
	for _, o := range p.replicas {
		eventually(p.t, 10*time.Second, func() string {
			if got := o.with(token); got.status != want {
				return fmt.Sprintf("status %d, want %d: %s", got.status, want, got.body)
			}
			return ""
		})
	}
	return time.Since(begin)
}

// goesOn holds that every replica decides by what it knew.
func (p *pair) goesOn(good, revoked, when string) {
	p.t.Helper()
	for i, o := range p.replicas {
		o.opens(good, true, fmt.Sprintf("%s, replica %d, a key", when, i))
		o.opens(revoked, false, fmt.Sprintf("%s, replica %d, a revoked key", when, i))
	}
}

// unready waits until each replica says so of its control store, and why.
func (p *pair) unready(why string) {
	p.t.Helper()
	for _, o := range p.replicas {
		eventually(p.t, 10*time.Second, func() string {
			resp, err := http.Get(o.admin + "/readyz/control")
			if err != nil {
				return err.Error()
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(string(body), why) {
				return fmt.Sprintf("%s: %s, %v, want %q", resp.Status, body, err, why)
			}
			return ""
		})
	}
}

// refuses holds that every replica refuses to change keys, and says why.
func (p *pair) refuses(why string) {
	p.t.Helper()
	for i, o := range p.replicas {
		for _, args := range [][]string{{"create", "late", "--team", "research"}, {"revoke", "good"}, {"disable", "tester"}} {
			if out, errs, code := o.key(p.t, args...); code == 0 || !strings.Contains(errs, why) || out != "" {
				p.t.Errorf("replica %d: weir key %v: exit %d: %q, %q, want %q", i, args, code, out, errs, why)
			}
		}
	}
}

// TestSharedKeys follows keys of two replicas through the life of their store: what one
// revokes no other takes two seconds later; what is known holds while the store is
// away; and a store that lost them is not taken for one without keys.
func TestSharedKeys(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	a, b := p.replicas[0], p.replicas[1]
	good := a.secret(t, "create", "good", "--team", "research")
	p.waits(good, http.StatusOK)
	var revoked string
	var slowest time.Duration
	for i := range 5 {
		name := fmt.Sprint("bad-", i)
		revoked = p.replicas[i%2].secret(t, "create", name, "--team", "research")
		p.waits(revoked, http.StatusOK)
		begin := time.Now()
		p.replicas[i%2].changed(t, "revoke", name)
		p.waits(revoked, http.StatusUnauthorized)
		slowest = max(slowest, time.Since(begin))
	}
	t.Logf("slowest of 5 revocations, from the start of weir key revoke until both replicas refuse: %s", slowest.Round(time.Millisecond))
	if slowest > 2*time.Second {
		t.Errorf("%s until a revocation was in force", slowest)
	}
	b.changed(t, "disable", "tester") // a key of the configuration
	p.waits(testKey, http.StatusUnauthorized)
	b.changed(t, "enable", "tester")
	p.waits(testKey, http.StatusOK)

	p.store.Kill()
	p.unready("the control store cannot be read for")
	p.refuses("the control store does not answer")
	p.goesOn(good, revoked, "the store is away")

	p.store.Run() // and knows nothing any more
	p.unready("it is empty, and was at revision")
	p.refuses("the control store is not what it was")
	for _, o := range p.replicas { // limits are put together again meanwhile
		eventually(t, 20*time.Second, o.notReady)
	}
	p.goesOn(good, revoked, "the store is empty")

	b.kill()
	serve := append([]string{"serve", "--config", b.config, "--data", b.dir}, b.flags...)
	if _, errs, code := weir(t, "", serve...); code == 0 || !strings.Contains(errs, "it is empty, and was at revision") {
		t.Errorf("started again: exit %d: %s", code, errs)
	}
	if err := os.Remove(filepath.Join(b.dir, "control-redis.id")); err != nil { // an operator decides
		t.Fatal(err)
	}
	b.serve()
	eventually(t, 20*time.Second, b.notReady)
	b.opens(good, false, "begun anew")
	p.waits(testKey, http.StatusOK)
}

// TestKeysOfOneMachineMove takes the keys of a weir that ran alone to the store of a
// deployment: it does not start without them.
func TestKeysOfOneMachineMove(t *testing.T) {
	store := redistest.Start(t, redistest.Valkey)
	shared := strings.NewReplacer("%LISTEN%", fmt.Sprintf("127.0.0.1:%d", freePort(t)), "%STORE%", store.Address(), "%KEYS%", deploymentSecrets(t),
		"%A%", "http://127.0.0.1:9", "%AMOUNT%", "1000", "%DEADLINE%", "60s", "replicas: 3", "replicas: 1").Replace(deploymentConfig)
	before, after, _ := strings.Cut(shared, "limit_store:")
	_, after, _ = strings.Cut(after, "\n")
	o := &operated{world: &world{gateway: &gateway{t: t, dir: t.TempDir(), config: filepath.Join(t.TempDir(), "weir.yaml")}}, flags: []string{
		"--replica", "only", "--listen", fmt.Sprintf("127.0.0.1:%d", freePort(t)),
	}}
	t.Cleanup(func() { o.stop() })
	o.write(before + after)
	o.serve()
	o.secret(t, "create", "mine", "--team", "research")
	o.changed(t, "revoke", "tester")
	imports := func() (out, errs string, code int) {
		return weir(t, "", "key", "import", "--config", o.config, "--data", o.dir)
	}
	if _, errs, code := imports(); code == 0 || !strings.Contains(errs, "no limit_store") {
		t.Errorf("nowhere to import to: exit %d: %s", code, errs)
	}
	o.write(shared)
	if _, errs, code := imports(); code == 0 || !strings.Contains(errs, "another weir uses it") {
		t.Errorf("while weir runs: exit %d: %s", code, errs)
	}
	o.kill()
	if _, errs, code := weir(t, "", append([]string{"serve", "--config", o.config, "--data", o.dir}, o.flags...)...); code == 0 || !strings.Contains(errs, "weir key import") {
		t.Errorf("keys are left behind: exit %d: %s", code, errs)
	}
	if out, errs, code := imports(); code != 0 || !strings.Contains(out, "keys: 1; decisions about keys of the configuration: 1; the file is ") {
		t.Fatalf("exit %d: %s%s", code, out, errs)
	}
	o.serve()
	eventually(t, 20*time.Second, o.notReady)
	for name, state := range map[string]string{"mine": "active", "tester": "key_revoked"} {
		if out, errs, code := o.key(t, "list", "--status", state); code != 0 || !strings.Contains(out, name) {
			t.Errorf("%s is not %s: exit %d: %s%s", name, state, code, out, errs)
		}
	}
	if out, _, _ := weir(t, "", "audit", "list", "--data", o.dir); !strings.Contains(out, "key.import") {
		t.Errorf("the audit: %s", out)
	}
}
