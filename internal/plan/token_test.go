package plan

import (
	"crypto/rand"
	"errors"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"
)

func newToken(t testing.TB) string {
	t.Helper()
	token, err := NewToken(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestNewToken(t *testing.T) {
	form, seen := regexp.MustCompile("^"+TokenPattern+"$"), map[string]bool{}
	for range 1000 {
		token := newToken(t)
		if !form.MatchString(token) || Malformed(token) || seen[token] {
			t.Fatalf("%q: malformed %v, seen before %v", token, Malformed(token), seen[token])
		}
		seen[token] = true
	}
	if token, err := NewToken(iotest.ErrReader(errors.New("dry"))); err == nil || token != "" {
		t.Errorf("without randomness: %q, %v", token, err)
	}
}

// The format is a promise to whoever holds a key: this one was made by it.
func TestTokenFormatStays(t *testing.T) {
	token, err := NewToken(strings.NewReader(strings.Repeat("\x00\x09\x0a\x23\x24\x3d\xf7\xf8\xff\x01", 20)))
	if want := "weir_09AZazz109AZazz109AZazz109AZazz13N6Yz7"; err != nil || token != want {
		t.Errorf("%q, want %q: %v", token, want, err)
	}
}

func TestMalformed(t *testing.T) {
	token := newToken(t)
	swapped := []byte(token)
	for i := 5; i < len(swapped)-1; i++ { // two neighbours that differ
		if swapped[i] != swapped[i+1] {
			swapped[i], swapped[i+1] = swapped[i+1], swapped[i]
			break
		}
	}
	for name, tt := range map[string]struct {
		token string
		want  bool
	}{
		"as made":            {token, false},
		"cut off":            {token[:len(token)-1], true},
		"longer":             {token + "0", true},
		"twice":              {token + token, true},
		"a space behind":     {token + " ", true},
		"a space within":     {token[:20] + " " + token[21:], true},
		"two swapped":        {string(swapped), true},
		"no checksum":        {token[:37] + "000000", true},
		"prefix alone":       {"weir_", true},
		"a NUL":              {token[:42] + "\x00", true},
		"beyond ASCII":       {token[:41] + "é", true},
		"prefix capitalized": {"WEIR_" + token[5:], false}, // foreign, and no key's hash
		"foreign":            {"sk-of-an-operator", false},
		"older":              {"weir-" + strings.Repeat("a", 43), false},
		"empty":              {"", false},
		"long":               {strings.Repeat("k", MaxToken), false},
		"too long":           {strings.Repeat("k", MaxToken+1), true},
	} {
		if got := Malformed(tt.token); got != tt.want {
			t.Errorf("%s: malformed is %v", name, got)
		}
	}
	for i := range token[5:] { // any wrong character
		wrong := []byte(token)
		if wrong[5+i]++; !Malformed(string(wrong)) {
			t.Errorf("character %d changed: not noticed", 5+i)
		}
	}
}

// Whatever comes in, weir's own form is exactly the pattern with its checksum.
func FuzzMalformed(f *testing.F) {
	token := newToken(f)
	for _, seed := range []string{"", "weir_", token, token[:42], token + " ", strings.ToUpper(token), "weir_" + token, "sk-x"} {
		f.Add(seed)
	}
	form := regexp.MustCompile("^" + TokenPattern + "$")
	f.Fuzz(func(t *testing.T, text string) {
		if !strings.HasPrefix(text, "weir_") {
			if Malformed(text) != (len(text) > MaxToken) {
				t.Errorf("a foreign token is judged: %q", text)
			}
			return
		}
		check := ""
		if form.MatchString(text) {
			digits := checksum(text[:37])
			check = string(digits[:])
		}
		if good := check != "" && text[37:] == check; good == Malformed(text) {
			t.Errorf("%q: malformed is %v", text, Malformed(text))
		}
	})
}
