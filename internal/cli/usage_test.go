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
	file := filepath.Join(t.TempDir(), "weir.yaml")
	for name, c := range map[string]struct{ text, data, want string }{
		"named in the file":      {"data_dir: /var/lib/weir\nkeys: [{name: k, secret: {env: NOT_SET_HERE}, team: t}]\n", "", "/var/lib/weir"},
		"not named":              {"keys: [{name: k, secret: {file: /not/there}, team: t}]\n", "", app.DefaultDataDir},
		"given beside the file":  {"data_dir: /var/lib/weir\n", "other", "other"},
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
