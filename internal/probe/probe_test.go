package probe

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var (
	noon  = time.Unix(1_700_000_000, 0)
	key   = KeyOf([]byte("the secret of the hashes"))
	other = KeyOf([]byte("the secret of others"))
)

func TestToken(t *testing.T) {
	for _, as := range []string{"", "demo", "a.key/with \x00 all"} {
		want := Token{Nonce: NewNonce(), At: noon, As: as}
		s := key.Mint(want)
		for _, now := range []time.Time{noon, noon.Add(Validity), noon.Add(-Validity)} {
			if got, ok := key.Read(s, now); !ok || !cmp.Equal(got, want) {
				t.Errorf("%q at %v: %+v, %v", as, now, got, ok)
			}
		}
		for _, now := range []time.Time{noon.Add(Validity + time.Second), noon.Add(-Validity - time.Second), {}} {
			if _, ok := key.Read(s, now); ok {
				t.Errorf("%q at %v: taken", as, now)
			}
		}
		if _, ok := other.Read(s, noon); ok {
			t.Error("a token of another key is taken")
		}
		if _, ok := (Key{}).Read((Key{}).Mint(want), noon); ok {
			t.Error("the zero key takes its own token")
		}
		for i := range s {
			for _, c := range []byte{'A', '.', s[i] ^ 1} {
				if bad := s[:i] + string(c) + s[i+1:]; bad != s {
					if _, ok := key.Read(bad, noon); ok {
						t.Fatalf("changed at %d: taken", i)
					}
				}
			}
			if _, ok := key.Read(s[:i], noon); ok {
				t.Fatalf("cut at %d: taken", i)
			}
		}
		for _, bad := range []string{s + "=", s + ".", " " + s, s + strings.Repeat("A", 2000)} {
			if _, ok := key.Read(bad, noon); ok {
				t.Errorf("%q: taken", bad)
			}
		}
	}
}

func TestAnswer(t *testing.T) {
	n := NewNonce()
	want := &Answer{ID: "1", Plan: "v", Verdict: Refused, Reason: "missing_key", Stage: "auth",
		Stages: []Stage{{Name: "auth", Mode: "enforce", Ran: true, Reason: "missing_key"}}, Limits: []Limit{{"l", true}}, Leaked: []string{"x-weir-a"}}
	s := key.Sign(n, want)
	got, err := key.Open(n, s)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(err, diff)
	}
	for name, open := range map[string]func() (*Answer, error){
		"another nonce":   func() (*Answer, error) { return key.Open(NewNonce(), s) },
		"another key":     func() (*Answer, error) { return other.Open(n, s) },
		"a token":         func() (*Answer, error) { return key.Open(n, key.Mint(Token{Nonce: n, At: noon, As: `{}`})) },
		"changed":         func() (*Answer, error) { return key.Open(n, "A"+s[1:]) },
		"nothing":         func() (*Answer, error) { return key.Open(n, "") },
		"longer than any": func() (*Answer, error) { return key.Open(n, strings.Repeat("A", maxAnswer)+"."+s) },
	} {
		if a, err := open(); err == nil {
			t.Errorf("%s: %+v", name, a)
		}
	}
}

// A token is taken once, for as long as it can be read.
func TestSeen(t *testing.T) {
	var s Seen
	first := Token{Nonce: NewNonce(), At: noon}
	if !s.Take(first, noon) || s.Take(first, noon) || s.Take(first, noon.Add(Validity)) {
		t.Error("once and no more")
	}
	for s.Take(Token{Nonce: NewNonce(), At: noon}, noon) {
		if len(s.until) > maxSeen {
			t.Fatal("no bound")
		}
	}
	late := Token{Nonce: NewNonce(), At: noon.Add(2 * Validity)}
	if !s.Take(late, late.At) || len(s.until) != 1 {
		t.Errorf("%d are remembered", len(s.until))
	}
}

func FuzzRead(f *testing.F) {
	f.Add(key.Mint(Token{At: noon, As: "demo"}))
	f.Add(".")
	f.Fuzz(func(t *testing.T, s string) {
		if got, ok := key.Read(s, noon); ok && key.Mint(got) != s {
			t.Errorf("%q has a second form", s)
		}
		_, _ = key.Open(Nonce{}, s)
	})
}
