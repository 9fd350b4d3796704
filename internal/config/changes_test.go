package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	configv1 "github.com/weirproxy/weir/proto/weir/config/v1"
)

func TestChanges(t *testing.T) {
	from := &configv1.Config{
		DataDir: "/a",
		Pools:   []*configv1.Pool{{Name: "one"}, {Name: "two"}, {Name: "old"}},
		Teams:   []*configv1.Team{{Name: "t"}},
		Models:  []*configv1.Model{{Name: "m", Rules: []*configv1.Rule{{When: "true"}, {When: "false"}}}},
	}
	to := proto.Clone(from).(*configv1.Config)
	to.DataDir = ""
	to.Pools = []*configv1.Pool{to.Pools[1], to.Pools[0], {Name: "new"}}
	to.Models[0].Rules = []*configv1.Rule{{When: "1 < 2"}}
	to.Admin = &configv1.Admin{}
	want := []string{
		`admin: added`,
		`data_dir: "/a" → not set`,
		`pools[old]: removed`,
		`pools[new]: added`,
		`models[m].rules[0].when: "true" → "1 < 2"`,
		`models[m].rules[1]: removed`,
	}
	got := Changes(from, to)
	byName := func(list []string) map[string]bool {
		m := map[string]bool{}
		for _, l := range list {
			m[l] = true
		}
		return m
	}
	if d := cmp.Diff(byName(want), byName(got)); d != "" {
		t.Error(d)
	}
	if same := Changes(from, proto.Clone(from).(*configv1.Config)); len(same) > 0 {
		t.Errorf("equal configurations differ: %q", same)
	}
}

// Whatever list of named things loses an element, it is said by its name.
func TestChangesOfAnExample(t *testing.T) {
	cfg, err := readFileOf(t, "../../examples/bank/weir.yaml")
	if err != nil {
		t.Fatal(err)
	}
	less := proto.Clone(cfg).(*configv1.Config)
	var gone string
	less.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if f.Name() == "pools" {
			gone = v.List().Get(v.List().Len() - 1).Message().Interface().(*configv1.Pool).Name
			v.List().Truncate(v.List().Len() - 1)
		}
		return true
	})
	if d := cmp.Diff([]string{"pools[" + gone + "]: removed"}, Changes(cfg, less)); d != "" {
		t.Error(d)
	}
}

func TestReadNamesTheFault(t *testing.T) {
	file := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(file, []byte("nonsense: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readFileOf(t, file); err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("got %v, want a fault that names the field", err)
	}
}

func readFileOf(t *testing.T, path string) (*configv1.Config, error) {
	t.Helper()
	text, err := Text(path)
	if err != nil {
		t.Fatal(err)
	}
	return Read(path, text)
}
