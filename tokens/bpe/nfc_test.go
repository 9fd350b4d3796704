package bpe

import (
	"math/rand/v2"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// The two agree but for the joiners that x/text puts into long runs of marks.
func TestNFC(t *testing.T) {
	t.Parallel()
	loadClasses()
	rng := rand.New(rand.NewPCG(3, 3))
	alphabet := []rune("aeoAEO \u0301\u0300\u0323\u0328\u0302\u0307\u031b\u0345\u0344\u1100\u1161\u11a7\u11a8\uac00\uac01\u09c7\u09be\u0915\u093c\u0340\u0374\u212b\u1e9b\u0f71\u0f72\u0f73\u0f80\ufb1d\u2126\U0001d15e\u05d0\u05bc\u3099\u304bé中")
	var n normalizer
	check := func(text string) {
		t.Helper()
		if got, want := string(n.nfc([]byte(text))), norm.NFC.String(text); got != want {
			t.Fatalf("%+q became %+q, want %+q", text, got, want)
		}
	}
	for range 100_000 {
		var s strings.Builder
		for range rng.IntN(20) {
			s.WriteRune(alphabet[rng.IntN(len(alphabet))])
		}
		check(s.String())
	}
	for r := rune(0); r <= unicode.MaxRune; r++ {
		if utf8.ValidRune(r) && !unicode.Is(later, r) {
			check("a" + string(r) + "\u0301b")
		}
	}
}

// Runs of marks of any length are ordered as a whole, and stay as long as they were.
func TestNFCOfLongRuns(t *testing.T) {
	t.Parallel()
	loadClasses()
	var n normalizer
	got := string(n.nfc([]byte("e" + strings.Repeat("\u0301\u0323", 500))))
	want := "\u1eb9" + strings.Repeat("\u0323", 499) + strings.Repeat("\u0301", 500)
	if got != want {
		t.Errorf("%.60q, want %.60q", got, want)
	}
}

func FuzzNFC(f *testing.F) {
	loadClasses()
	f.Add("e\u0301\u0323 \xff\u0301 한글 \u1112\u1161\u11ab")
	f.Fuzz(func(t *testing.T, text string) {
		once := string(new(normalizer).nfc([]byte(text)))
		if twice := string(new(normalizer).nfc([]byte(once))); twice != once {
			t.Fatalf("%+q became %+q and then %+q", text, once, twice)
		}
		marks := 0
		for _, r := range norm.NFD.String(text) {
			if unicode.Is(later, r) {
				return
			}
			if marks++; norm.NFC.PropertiesString(string(r)).CCC() == 0 {
				marks = 0
			}
			if marks >= 30 {
				return
			}
		}
		if utf8.ValidString(text) && once != norm.NFC.String(text) {
			t.Fatalf("%+q became %+q", text, once)
		}
	})
}
