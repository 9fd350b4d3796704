package plan

import (
	"net/url"
	"strings"
	"testing"
)

func TestCheckSPIFFEID(t *testing.T) {
	for id, want := range map[string]bool{
		"spiffe://example.org/a": true, "spiffe://example.org/ns/a/sa/B-c_d.e": true, "spiffe://10.0.0.1/a": true, "spiffe://e/...": true,
		"": false, "spiffe://": false, "spiffe:///a": false, "spiffe://e": false, "spiffe://e/": false, "spiffe://e/a/": false, "spiffe://e//a": false,
		"SPIFFE://e/a": false, "spiffe://E/a": false, "spiffe://e:1/a": false, "spiffe://u@e/a": false, "spiffe://e/a?b": false, "spiffe://e/a#b": false,
		"spiffe://e/%61": false, "spiffe://e/.": false, "spiffe://e/../a": false, "spiffe://e/a,spiffe://e/b": false, "spiffe://e/*": false, "https://e/a": false,
		"spiffe://e/" + strings.Repeat("a", 2048): false, "spiffe://" + strings.Repeat("e", 256) + "/a": false, "spiffe://e/ä": false, " spiffe://e/a": false,
	} {
		if err := CheckSPIFFEID(id); (err == nil) != want {
			t.Errorf("%.60q: %v", id, err)
		}
	}
}

// What is accepted is a URL that can be read in one way only.
func FuzzCheckSPIFFEID(f *testing.F) {
	f.Add("spiffe://example.org/ns/a")
	f.Add("spiffe://e/a/../b")
	f.Add("spiffe://e/%2e")
	f.Fuzz(func(t *testing.T, id string) {
		if CheckSPIFFEID(id) != nil {
			return
		}
		u, err := url.Parse(id)
		if err != nil || u.Scheme != "spiffe" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Port() != "" {
			t.Fatalf("%q: %+v, %v", id, u, err)
		}
		if clean := u.JoinPath(); clean.Path != u.Path || u.EscapedPath() != u.Path || "spiffe://"+u.Host+u.Path != id || strings.ContainsAny(id, ", ") {
			t.Errorf("%q is read as %q", id, clean)
		}
	})
}
