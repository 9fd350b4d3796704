package profile

import (
	"regexp"
	"strings"
	"testing"
)

// Every row is whole: what weir would go by and what an operator would look up.
func TestTable(t *testing.T) {
	name, metric := regexp.MustCompile(`^[a-z0-9][-a-z0-9.]*$`), regexp.MustCompile(`^[a-z_][a-z0-9_:]*$`)
	seen := map[string]bool{}
	for _, p := range All() {
		if !name.MatchString(p.Name) || seen[p.Name] {
			t.Errorf("%q is no name, or stands twice", p.Name)
		}
		seen[p.Name] = true
		if p.Title == "" || len(p.Sources) == 0 || !strings.HasPrefix(p.BasePath, "/") || strings.HasSuffix(p.BasePath, "/") {
			t.Errorf("%s: title %q, sources %q, base path %q", p.Name, p.Title, p.Sources, p.BasePath)
		}
		if p.Header == "" || p.Header != strings.ToLower(p.Header) {
			t.Errorf("%s: header %q", p.Name, p.Header)
		}
		if p.Provider && (p.Health != "" || p.Metrics.Path != "") {
			t.Errorf("%s: a provider is neither checked nor asked how busy it is", p.Name)
		}
		if !p.Provider && !strings.HasPrefix(p.Health, "/") {
			t.Errorf("%s: health path %q", p.Name, p.Health)
		}
		if m := p.Metrics; (m.Path == "") != (len(m.Running) == 0) || (m.Path == "") != (len(m.Waiting) == 0) {
			t.Errorf("%s: metrics %+v", p.Name, m)
		}
		for _, names := range [][]string{p.Metrics.Running, p.Metrics.Waiting, p.Metrics.KVUse, p.Metrics.PrefixQueries, p.Metrics.PrefixHits} {
			for _, n := range names {
				if !metric.MatchString(n) {
					t.Errorf("%s: metric %q", p.Name, n)
				}
			}
		}
	}
	if _, ok := ByName(Default); !ok {
		t.Errorf("the default %q is not in the table", Default)
	}
	if p, ok := ByName("telepathy"); ok {
		t.Errorf("found %v", p)
	}
}
