package cli

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/weirproxy/weir/internal/app"
)

// An operator's shell has not what weir's environment has: the data directory is found
// all the same.
func TestDataDir(t *testing.T) {
	const rest = `
listeners: [{name: main, address: "127.0.0.1:10080"}]
pools: [{name: a, placement: private, endpoints: [{url: "http://a"}], model: m}]
models: [{name: chat, targets: [{pool: a}]}]
teams: [{name: t}]
keys: [{name: k, secret: {env: NOT_SET_HERE}, team: t}]
`
	file := filepath.Join(t.TempDir(), "weir.yaml")
	for name, c := range map[string]struct{ text, data, want string }{
		"named in the file":      {"data_dir: /var/lib/weir" + rest, "", "/var/lib/weir"},
		"not named":              {rest, "", app.DefaultDataDir},
		"given beside the file":  {"data_dir: /var/lib/weir" + rest, "other", "other"},
		"a file that is no file": {"data_dir: [\n", "", ""},
	} {
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := dataDir(c.data, file)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: %q, %v, want %q", name, got, err, c.want)
		}
	}
	if got, err := dataDir("", ""); got != app.DefaultDataDir || err != nil {
		t.Error(got, err)
	}
}
