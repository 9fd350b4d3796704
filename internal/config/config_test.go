package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

// small is a valid configuration.
const small = `
listeners: [{name: main, address: "127.0.0.1:10080"}]
pools: [{name: a, placement: private, endpoints: [{url: "http://a:1"}], model: m, credential: {secret: {env: CREDENTIAL}}}]
models: [{name: chat, targets: [{pool: a}]}]
teams: [{name: core, roles: [r]}]
roles: [{name: r, models: [chat]}]
keys:
- {name: demo, secret: {generated: demo}, team: core}
- {name: given, secret: {env: KEY}, team: core}
`

var smallEnv = map[string]string{"CREDENTIAL": "sk-1", "KEY": "weir-given-0123456789"}

func mustParse(t *testing.T, dir, text string, env map[string]string) *plan.Plan {
	t.Helper()
	p, err := Parse(filepath.Join(dir, "weir.yaml"), []byte(text), options(dir, env))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestGeneratedSecretsAreKept(t *testing.T) {
	dir := t.TempDir()
	o := options(dir, smallEnv)
	o.ReadOnly = true
	p, err := Parse(filepath.Join(dir, "weir.yaml"), []byte(small), o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "data")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a read-only load created the data directory: %v", err)
	}
	if p.KeyList[0].Shown != "" {
		t.Error("a key that is not kept is shown")
	}
	if _, err := Parse("weir.yaml", []byte(small+"\nx: 1"), options(dir, smallEnv)); err == nil {
		t.Error("no fault")
	}
	if _, err := os.Stat(filepath.Join(dir, "data")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a faulty file created the data directory: %v", err)
	}

	first := mustParse(t, dir, small, smallEnv)
	second := mustParse(t, dir, small, smallEnv)
	shown := first.KeyList[0].Shown
	if shown == "" || shown != second.KeyList[0].Shown || first.Version != second.Version {
		t.Errorf("first %q %s, second %q %s", shown, first.Version, second.KeyList[0].Shown, second.Version)
	}
	if c, reason := second.KeyByToken(shown, time.Now()); reason != "" || c.Principal.Key != "demo" || plan.Malformed(shown) {
		t.Errorf("the generated key %s finds %v: %s", shown, c, reason)
	}
	if c, reason := second.KeyByToken(smallEnv["KEY"], time.Now()); reason != "" || c.Principal.Key != "given" || second.KeyList[1].Shown != "" {
		t.Errorf("the given key finds %+v: %s", c, reason)
	}
	if c, reason := second.KeyByToken(shown+"x", time.Now()); reason != ai.ReasonInvalidKey {
		t.Errorf("another key finds %v: %s", c, reason)
	}
	for name, mode := range map[string]os.FileMode{"demo": 0o600, "key-hash": 0o600, "": os.ModeDir | 0o700} {
		info, err := os.Stat(filepath.Join(dir, "data", "secrets", name))
		if err != nil || info.Mode() != mode {
			t.Errorf("%q: %v %v, want mode %v", name, info.Mode(), err, mode)
		}
	}
	entries, _ := os.ReadDir(filepath.Join(dir, "data", "secrets"))
	if len(entries) != 2 {
		t.Errorf("left in secrets: %v", entries)
	}
}

func TestGeneratedSecretsOfConcurrentStarts(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "secrets", "s")
	var wg sync.WaitGroup
	got := make([]string, 8)
	for i := range got {
		wg.Go(func() {
			s, err := createSecret(bytes.NewReader(bytes.Repeat([]byte{byte(i + 1)}, 64)), file)
			if err != nil {
				t.Error(err)
			}
			got[i] = s
		})
	}
	wg.Wait()
	for _, s := range got {
		if s != got[0] || len(s) != len("weir_")+38 {
			t.Errorf("secrets differ: %q", got)
			break
		}
	}
}

func TestVersion(t *testing.T) {
	dir := t.TempDir()
	base := mustParse(t, dir, small, smallEnv).Version
	with := func(name, value string) map[string]string {
		env := map[string]string{}
		for k, v := range smallEnv {
			env[k] = v
		}
		env[name] = value
		return env
	}
	for _, tt := range []struct {
		name, text string
		env        map[string]string
		same       bool
	}{
		{"comment and defaults", "# hello\n" + small + "admin: {address: \"127.0.0.1:10081\"}\nrequest_bounds: {max_depth: 64}", smallEnv, true},
		{"other amount", small + "limits: [{name: l, unit: tokens, amount: 5}]", smallEnv, false},
		{"other credential", small, with("CREDENTIAL", "sk-2"), false},
		{"other key", small, with("KEY", "weir-other-0123456789"), false},
	} {
		got := mustParse(t, dir, tt.text, tt.env).Version
		if (got == base) != tt.same || len(got) != 32 {
			t.Errorf("%s: version %s, base %s", tt.name, got, base)
		}
	}
}

func TestHashLine(t *testing.T) {
	secret := []byte("secret")
	line := HashLine(secret, "key")
	// printf key | openssl dgst -sha256 -hmac secret
	if want := "hmac-sha256:96de09a0f8699191b28587118ac57df88bbf6c2d0c131d196dcd90f7efd68c93"; line != want {
		t.Errorf("got %q", line)
	}
	h, err := ParseHash(line)
	if err != nil || h != plan.HashKey(secret, "key") {
		t.Errorf("got %x, %v", h, err)
	}
	for _, bad := range []string{"", "hmac-sha256:", "hmac-sha256:00", line[1:], line + "0", line[:len(line)-1] + "g"} {
		if _, err := ParseHash(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestKeysByHash(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "weir.yaml")
	if err := os.WriteFile(path, []byte(small), 0o600); err != nil {
		t.Fatal(err)
	}
	secret, err := HashSecret(path, options(dir, nil)) // other secrets need not be there
	if err != nil {
		t.Fatal(err)
	}
	text := small + fmt.Sprintf("- {name: hashed, hash: %q, team: core}\n", HashLine(secret, "weir-typed-by-hand"))
	c, reason := mustParse(t, dir, text, smallEnv).KeyByToken("weir-typed-by-hand", time.Now())
	if reason != "" || c.Principal.Key != "hashed" {
		t.Errorf("got %v: %s", c, reason)
	}
}

func TestUnreadableFiles(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct{ path, want string }{
		{filepath.Join(dir, "none.yaml"), "none.yaml: no such file or directory"},
		{dir, "is not a regular file"},
	} {
		_, err := Load(tt.path, Options{})
		var faults Faults
		if !errors.As(err, &faults) || len(faults) != 1 || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.path, err)
		}
	}
}

func TestHostileTexts(t *testing.T) {
	bomb := "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
	models := "models: [" + strings.TrimSuffix(strings.Repeat("*m,", 2000), ",") + "]\n"
	for _, tt := range []struct{ name, text, want string }{
		{"large", "# " + strings.Repeat("x", maxFileBytes), "weir.yaml:1:1: the file is larger than 4 MiB"},
		{"latin-1", "data_dir: a\n# caf\xe9", "weir.yaml:2:6: the file is not UTF-8 text"},
		{"utf-16", "\xff\xfed\x00", "weir.yaml:1:1: the file is not UTF-8 text"},
		{"nul", "data_dir: a\x00", "weir.yaml:1:12: the file is not UTF-8 text"},
		{"bom", "\ufeffdata: a", "weir.yaml:1:1: data: unknown field"},
		{"empty", "", "weir.yaml:1:1: the file is empty"},
		{"deep flow", strings.Repeat("[", 20_000), "weir.yaml:1:1:"},
		{"deep fields", "admin: " + strings.Repeat("{a: ", 5_000) + strings.Repeat("}", 5_000), "weir.yaml:1:9: admin.a: unknown field"},
		{"unknown bomb", bomb, "weir.yaml:1:1: a: unknown field"},
		{"bomb", "pools: &p [" + strings.Repeat("x,", 2000) + "]\nlisteners: [{name: &m {rules: " +
			"[" + strings.Repeat("{targets: [{pool: a}]},", 500) + "]}}]\n" + models, "more than 500000 values"},
	} {
		_, err := Parse("weir.yaml", []byte(tt.text), Options{ReadOnly: true})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %.300v", tt.name, err)
		}
	}
}

func TestWorldReadableSecretFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "credential")
	if err := errors.Join(os.WriteFile(file, []byte("sk-1\r\n"), 0o644), os.Chmod(file, 0o644)); err != nil {
		t.Fatal(err)
	}
	o := options(dir, smallEnv)
	var warnings []string
	o.Warn = func(f Fault) { warnings = append(warnings, f.Path) }
	p, err := Parse(filepath.Join(dir, "weir.yaml"), []byte(strings.Replace(small, "env: CREDENTIAL", "file: credential", 1)), o)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"pools[0].credential", "pools[0].credential.secret.file"}, warnings); diff != "" {
		t.Error(diff)
	}
	if got := p.Pools[0].Credential.Value; got != "Bearer sk-1" {
		t.Errorf("credential %q", got)
	}
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "weir.yaml")
	text := `
key_hash_secret: {file: /abs/hash}
listeners: [{name: a, tls: {certificate_file: tls.crt, private_key_file: tls.key, client_ca_file: cas.pem}}]
pools: [{name: a, credential: {secret: {file: s/a}}, tls: {ca_file: ca.pem}, unknown: 1}]
keys: [{name: k, secret: {file: k}}, {name: l, secret: {env: E}}]
doctor: {certificate: {certificate_file: d.crt, private_key_file: d.key}, proxies: [{ca_file: d.pem}]}
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	want := []string{path, "/abs/hash", in("tls.crt"), in("tls.key"), in("cas.pem"), in("s/a"), in("ca.pem"), in("k"), in("d.crt"), in("d.key"), in("d.pem")}
	if diff := cmp.Diff(want, Files(path)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"/none"}, Files("/none")); diff != "" {
		t.Error(diff)
	}
}

// FuzzParse holds that no text ends weir, that a text gives either a plan or
// faults with a place, and that a plan refers to nothing that is nil.
func FuzzParse(f *testing.F) {
	cases, _ := filepath.Glob("testdata/*.txtar")
	for _, file := range cases {
		text, _ := os.ReadFile(file)
		_, text, _ = bytes.Cut(text, []byte("-- weir.yaml --\n"))
		text, _, _ = bytes.Cut(text, []byte("\n-- "))
		f.Add(text)
	}
	f.Add([]byte("\ufeffpools: [{name: a}]\r\nadmin:\u2028 {}"))
	f.Add([]byte("a: &a\n  <<: [*a, *a]\n? {}\n: !!binary x\n%YAML 1.2\n---\n"))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 64<<10 {
			return
		}
		o := options(dir, smallEnv)
		o.ReadOnly = true
		p, err := Parse(filepath.Join(dir, "weir.yaml"), text, o)
		if err != nil {
			var faults Faults
			if !errors.As(err, &faults) || len(faults) == 0 || p != nil {
				t.Fatalf("plan %v, error %v", p, err)
			}
			for _, fault := range faults {
				if fault.Line < 1 || fault.Col < 1 || fault.Message == "" {
					t.Fatalf("fault without place: %+v", fault)
				}
			}
			return
		}
		for _, m := range p.ModelList {
			for _, r := range m.Rules {
				if r.When == nil || len(r.Targets) == 0 {
					t.Fatalf("rule %+v", r)
				}
			}
			if p.Models[m.Name] != m || len(m.Pools) == 0 {
				t.Fatalf("model %+v", m)
			}
		}
	})
}

// A key that expires does so by the clock; one that is revoked does not open.
func TestKeyStates(t *testing.T) {
	secret := []byte("0123456789abcdef")
	line := func(key string) string { return HashLine(secret, key) }
	text := "key_hash_secret: {env: HASH}\n" + small +
		fmt.Sprintf("- {name: until, hash: %q, team: core, expires_at: 2026-07-01T00:00:00Z}\n", line("key-until")) +
		fmt.Sprintf("- {name: stolen, hash: %q, team: core, revoked: true}\n", line("key-stolen"))
	env := map[string]string{"CREDENTIAL": "sk-1", "KEY": "weir-given-0123456789", "HASH": string(secret)}
	p := mustParse(t, t.TempDir(), text, env)
	july := time.Date(2026, 7, 1, 0, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		token string
		at    time.Time
		want  ai.Reason
	}{
		{"key-until", july.Add(-time.Second), ai.ReasonNone},
		{"key-until", july, ai.ReasonKeyExpired},
		{"key-stolen", july, ai.ReasonKeyRevoked},
		{"key-other", july, ai.ReasonInvalidKey},
	} {
		if _, got := p.KeyByToken(tt.token, tt.at); got != tt.want {
			t.Errorf("%s at %s: %q, want %q", tt.token, tt.at, got, tt.want)
		}
	}
}

// A key that says it is weir's and is mistyped could never open.
func TestMistypedKey(t *testing.T) {
	token, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		token:                    "",
		token[:42] + "!":         "keys[1].secret: the key begins with weir_ and its checksum is wrong",
		strings.Repeat("k", 5e3): "keys[1].secret: the key is longer than 4096 characters",
	} {
		_, err := Parse("weir.yaml", []byte(small), options(t.TempDir(), map[string]string{"CREDENTIAL": "sk-1", "KEY": key}))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%.50s: %v", key, err)
		}
	}
}
