package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// key runs weir key … on the running gateway's data directory.
func (g *gateway) key(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	return weir(t, "", append([]string{"key"}, append(args, "--data", g.dir)...)...)
}

// secret is key for commands that print a new secret, and must succeed.
func (g *gateway) secret(t *testing.T, args ...string) string {
	t.Helper()
	out, errs, code := g.key(t, args...)
	if code != 0 || !regexp.MustCompile(`^weir_[0-9A-Za-z]{38}\n$`).MatchString(out) || strings.Contains(errs, "weir_") {
		t.Fatalf("weir key %v: exit %d: %q, %q", args, code, out, errs)
	}
	return strings.TrimSpace(out)
}

// changed is key for commands that change a key, and must succeed.
func (g *gateway) changed(t *testing.T, args ...string) {
	t.Helper()
	if out, errs, code := g.key(t, args...); code != 0 {
		t.Fatalf("weir key %v: exit %d: %s%s", args, code, out, errs)
	}
}

func (g *gateway) with(token string) answer {
	g.t.Helper()
	return g.post("/v1/chat/completions", chatBody("chat", false), "authorization", "Bearer "+token)
}

// opens checks what becomes of a request with the token.
func (g *gateway) opens(token string, want bool, when string) {
	g.t.Helper()
	got := g.with(token)
	if want && got.status != 200 || !want && (got.status != 401 || got.code() != "invalid_api_key") {
		g.t.Errorf("%s: status %d: %s", when, got.status, got.body)
	}
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The life of a key, made and ended at the command line, through a real Envoy.
func TestKeyLife(t *testing.T) {
	t.Parallel()
	o := newServe(t, "--listen", "127.0.0.1:0")
	o.yaml = edited(t, readFile(t, o.config), "roles:\n", "roles:\n  - name: passing\n    models: [chat]\n")
	o.write(o.yaml)
	o.startEnvoy(o.ready.GRPCAddress)
	first := o.secret(t, "create", "ci", "--application", "assistant", "--roles", "user", "--expires", "1h", "--note", "for tests")
	o.opens(first, true, "made")
	t.Run("attacks", func(t *testing.T) { testKeyAttacks(t, o, first) })

	second := o.secret(t, "rotate", "ci", "--overlap", "3s")
	rotated := time.Now()
	o.opens(first, true, "the old secret in its overlap")
	o.opens(second, true, "the new secret")
	eventually(t, 10*time.Second, func() string {
		if got := o.with(first); got.status != 401 {
			return fmt.Sprintf("the old secret: status %d", got.status)
		}
		return ""
	})
	if d := time.Since(rotated); d < time.Second {
		t.Errorf("the overlap lasted for %s", d)
	}
	o.opens(second, true, "the new secret after the overlap")
	o.changed(t, "disable", "ci")
	o.opens(second, false, "disabled")
	o.changed(t, "enable", "ci", "--reason", "a mistake")
	o.opens(second, true, "enabled")
	short := o.secret(t, "create", "short", "--team", "research", "--roles", "user", "--expires", "2s")
	o.opens(short, true, "before it expires")

	o.stop()
	if _, errs, code := o.key(t, "list"); code != 1 || !strings.Contains(errs, "no weir runs on the data directory") {
		t.Errorf("without weir: exit %d: %s", code, errs)
	}
	o.flags = []string{"--listen", o.ready.GRPCAddress}
	o.serve()
	o.waitEnvoy()
	o.opens(second, true, "after a restart")
	eventually(t, 10*time.Second, func() string {
		if got := o.with(short); got.status != 401 {
			return fmt.Sprintf("expired: status %d", got.status)
		}
		return ""
	})
	t.Run("revoked", func(t *testing.T) { testRevocation(t, o, second) })
	t.Run("explained", func(t *testing.T) { testKeysExplained(t, o, second) })
	t.Run("orphaned", func(t *testing.T) { testOrphans(t, o) })
	t.Run("audited", func(t *testing.T) { testAudited(t, o) })
	t.Run("metrics are documented", func(t *testing.T) { testMetricsDocumented(t, o) })
	t.Run("store replaced", func(t *testing.T) { testStoreReplaced(t, o) })
}

// What is nearly a key is none, and every answer is the same.
func testKeyAttacks(t *testing.T, o *operated, key string) {
	last := key[len(key)-1]
	other := byte('a')
	if last == other {
		other = 'b'
	}
	for name, headers := range map[string][]string{
		"upper case":     {"authorization", "Bearer " + strings.ToUpper(key)},
		"lower case":     {"authorization", "Bearer " + strings.ToLower(key)},
		"cut off":        {"authorization", "Bearer " + key[:len(key)-1]},
		"longer":         {"authorization", "Bearer " + key + "0"},
		"wrong checksum": {"authorization", "Bearer " + key[:len(key)-1] + string(other)},
		"a space within": {"authorization", "Bearer " + key[:20] + " " + key[20:]},
		"another behind": {"authorization", "Bearer " + key + ", Bearer " + key},
		"two headers":    {"authorization", "Bearer " + key, "authorization", "Bearer " + key},
		"basic":          {"authorization", "Basic " + key},
		"spaces around":  {"authorization", "Bearer  " + key},
		"well-formed":    {"authorization", "Bearer weir_09AZazz109AZazz109AZazz109AZazz13N6Yz7"},
		"long":           {"authorization", "Bearer " + strings.Repeat("k", 20_000)},
	} {
		got := o.post("/v1/chat/completions", chatBody("chat", false), headers...)
		if got.status != 401 || got.code() != "invalid_api_key" {
			t.Errorf("%s: status %d: %.200s", name, got.status, got.body)
		}
	}
	if got := o.post("/v1/chat/completions", chatBody("chat", false), "authorization", "bEARER "+key+" "); got.status != 200 {
		t.Errorf("the scheme in any case, and a space at the end that is not of the value: status %d", got.status)
	}
}

// A revocation, of a stored key and of one of the file, is in force within two
// seconds of the command's start, through Envoy; and after a restart.
func testRevocation(t *testing.T, o *operated, token string) {
	for name, key := range map[string]string{"ci": token, "insider": otherKey} {
		begin := time.Now()
		o.changed(t, "revoke", name, "--reason", "found in a log")
		eventually(t, 10*time.Second, func() string {
			if got := o.with(key); got.status != 401 {
				return fmt.Sprintf("%s: status %d", name, got.status)
			}
			return ""
		})
		d := time.Since(begin)
		t.Logf("%s: refused %s after the command was started", name, d.Round(time.Millisecond))
		if d > 2*time.Second {
			t.Errorf("%s: %s", name, d)
		}
		if _, errs, code := o.key(t, "enable", name); code != 1 || !strings.Contains(errs, "revoked") {
			t.Errorf("%s enabled again: exit %d: %s", name, code, errs)
		}
	}
	o.stop()
	o.serve()
	o.waitEnvoy()
	o.opens(token, false, "revoked, after a restart")
	o.opens(otherKey, false, "a key of the file that was revoked, after a restart")
}

// explain knows stored keys, by secret and by name, and says why one is refused.
func testKeysExplained(t *testing.T, o *operated, token string) {
	for key, reason := range map[string]string{token: "key_revoked", "ci": "key_revoked", "short": "key_expired", "insider": "key_revoked", "tester": ""} {
		out, errs, code := weir(t, "", "explain", "--config", o.config, "--data", o.dir, "--key", key, "--path", "/v1/models", "--format", "json")
		var got struct{ Reason string }
		if err := json.Unmarshal([]byte(out), &got); err != nil || got.Reason != reason || (code == 0) != (reason == "") {
			t.Errorf("%.9s: exit %d, reason %q, want %q: %v %s", key, code, got.Reason, reason, err, errs)
		}
	}
}

// A key whose role goes from the file is refused, and listed as such.
func testOrphans(t *testing.T, o *operated) {
	token := o.secret(t, "create", "orphan", "--team", "research", "--roles", "passing,user")
	o.opens(token, true, "made")
	o.write(edited(t, o.yaml, "  - name: passing\n    models: [chat]\n", ""))
	eventually(t, 10*time.Second, func() string {
		if got := o.with(token); got.status != 401 {
			return fmt.Sprintf("status %d", got.status)
		}
		return ""
	})
	out, errs, code := o.key(t, "list", "--status", "key_orphaned")
	if code != 0 || !strings.Contains(out, "orphan ") || !strings.Contains(out, "key_orphaned (no role passing)") {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
	if line := lineWith(o.log.String(), "stored keys are refused", "role passing"); line == "" {
		t.Error("the log says nothing of it")
	}
	// The name of a stored key is not one for the file.
	o.write(edited(t, o.yaml, "  - name: tester\n", "  - name: orphan\n"))
	o.refusedWith(t, "the control store has a key")
	o.write(o.yaml)
	eventually(t, 10*time.Second, func() string {
		if got := o.with(token); got.status != 200 {
			return fmt.Sprintf("the role is back: status %d", got.status)
		}
		return ""
	})
}

// The audit has every change and no secret; events have the reasons.
func testAudited(t *testing.T, o *operated) {
	out, errs, code := weir(t, "", "audit", "list", "--data", o.dir, "--object", "key/ci")
	if code != 0 || strings.Contains(out, "weir_") {
		t.Fatalf("exit %d: %s%s", code, out, errs)
	}
	var actions []string
	for line := range strings.Lines(out) {
		if fields := strings.Fields(line); len(fields) > 4 && fields[0] != "TIME" {
			actions = append(actions, fields[2]+" "+fields[4])
			if !strings.HasPrefix(fields[1], "socket:uid=") {
				t.Errorf("actor %s", fields[1])
			}
		}
	}
	want := "key.state failed, key.revoke done, key.enable done, key.disable done, key.rotate done, key.create done"
	if got := strings.Join(actions, ", "); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	eventually(t, 10*time.Second, func() string {
		reasons := map[string]bool{}
		for _, r := range o.usage(t) {
			reasons[r.Reason] = true
		}
		for _, want := range []string{"invalid_key", "key_disabled", "key_expired", "key_revoked", "key_orphaned"} {
			if !reasons[want] {
				return fmt.Sprintf("no event is %s: %v", want, reasons)
			}
		}
		return ""
	})
	b, err := os.ReadFile(filepath.Join(o.dir, "control.db"))
	if err != nil || strings.Contains(string(b), "weir_") || strings.Contains(o.log.String(), "weir_") {
		t.Errorf("a secret is in the store or in the log: %v", err)
	}
}

// A store that is taken away makes weir unready; without it weir does not start.
func testStoreReplaced(t *testing.T, o *operated) {
	db := filepath.Join(o.dir, "control.db")
	if err := os.Rename(db, db+".away"); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, func() string {
		if resp, err := http.Get(o.admin + "/readyz/control"); err != nil || resp.StatusCode != http.StatusServiceUnavailable {
			return fmt.Sprintf("%v, %v", resp, err)
		}
		return ""
	})
	if got := o.chat("chat"); got.status != 200 {
		t.Errorf("keys that are known: status %d", got.status)
	}
	o.stop()
	if _, errs, code := weir(t, "", "serve", "--config", o.config, "--data", o.dir, "--listen", "127.0.0.1:0"); code != 1 || !strings.Contains(errs, "it is missing: stored keys would not open and revoked ones would") {
		t.Errorf("without its store: exit %d: %s", code, errs)
	}
}
