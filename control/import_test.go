package control_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weirproxy/weir/control"
	"github.com/weirproxy/weir/control/sqlite"
	"github.com/weirproxy/weir/control/storetest"
	"github.com/weirproxy/weir/internal/plan"
)

func openStore(t *testing.T) control.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func stored(name string, state plan.State) control.Change {
	k := storetest.Key(name, plan.Owner{Team: "core"})
	k.State = state
	return control.Change{Key: k}
}

func decided(name string, state plan.State) control.Change {
	return control.Change{Override: &control.Override{Hash: storetest.Hash(name), Name: name, State: state}}
}

// In the end all is there, and nothing is less strict than it was in either place.
func TestImport(t *testing.T) {
	from, to := openStore(t), openStore(t)
	for _, c := range []control.Change{
		stored("a", plan.StateActive), stored("b", plan.StateRevoked), stored("both", plan.StateRevoked), stored("stays", plan.StateActive),
		decided("x", plan.StateRevoked), decided("y", plan.StateActive), decided("z", plan.StateDisabled), decided("w", plan.StateDisabled),
	} {
		storetest.Put(t, from, c)
	}
	for _, c := range []control.Change{
		stored("both", plan.StateDisabled), stored("stays", plan.StateRevoked), stored("other", plan.StateActive),
		decided("z", plan.StateRevoked), decided("w", plan.StateActive),
	} {
		storetest.Put(t, to, c)
	}
	ended := stored("taken", plan.StateRevoked) // its name is another key's there
	ended.Key.Secrets[0].Hash = storetest.Hash("ended")
	storetest.Put(t, from, ended)
	storetest.Put(t, to, stored("taken", plan.StateActive))
	by := control.Actor{Name: "import:uid=0"}
	for i, want := range []control.Imported{{Keys: 3, Overrides: 2}, {}} { // again: nothing is left to do
		if n, err := control.Import(t.Context(), from, to, by, noon); err != nil || n != want {
			t.Errorf("time %d: %+v, %v, want %+v", i+1, n, err, want)
		}
	}
	got := map[string]plan.State{}
	if _, err := to.Changes(t.Context(), 0, func(k *control.Key, o *control.Override) error {
		if k != nil {
			got[k.Name] = k.State
		} else {
			got["override "+o.Name] = o.State
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]plan.State{
		"a": plan.StateActive, "b": plan.StateRevoked, "both": plan.StateRevoked, "stays": plan.StateRevoked, "other": plan.StateActive, "taken": plan.StateActive,
		"override x": plan.StateRevoked, "override z": plan.StateRevoked, "override w": plan.StateDisabled,
	}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	was, err := from.Key(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	now, err := to.Key(t.Context(), "a")
	was.Revision = now.Revision
	if diff := cmp.Diff(was, now); err != nil || diff != "" {
		t.Errorf("%v, -want +got:\n%s", err, diff)
	}
	list, err := to.Audit(t.Context(), control.AuditFilter{Action: "key.import", Actor: by.Name}, 100)
	if err != nil || len(list) != 5 || list[len(list)-1].Object != "key/a" || list[len(list)-1].After != "state=active team=core" {
		t.Errorf("%+v, %v", list, err)
	}
}

// What cannot be imported changes nothing.
func TestImportRefuses(t *testing.T) {
	from := openStore(t)
	storetest.Put(t, from, stored("fine", plan.StateActive))
	for i := range 12 {
		storetest.Put(t, from, stored(fmt.Sprintf("k%02d", i), plan.StateActive))
	}
	clash, secret := openStore(t), openStore(t)
	for i := range 12 {
		other := stored(fmt.Sprintf("k%02d", i), plan.StateActive)
		other.Key.Secrets[0].Hash = storetest.Hash(fmt.Sprint("other", i))
		storetest.Put(t, clash, other)
	}
	other := stored("other", plan.StateActive)
	other.HashCheck = []byte("another secret")
	storetest.Put(t, secret, other)
	for _, tt := range []struct {
		to   control.Store
		want error
		says string
	}{
		{clash, nil, `nothing is imported: other keys have the names "k00", "k01", "k02", "k03", "k04", "k05", "k06", "k07", "k08", "k09" and 2 others`},
		{secret, control.ErrHashSecret, "key_hash_secret"},
	} {
		before, err := tt.to.Revision(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		n, err := control.Import(t.Context(), from, tt.to, root, noon)
		if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) || n != (control.Imported{}) {
			t.Errorf("%+v, %v, want %q", n, err, tt.says)
		}
		if after, err := tt.to.Revision(t.Context()); err != nil || after != before {
			t.Errorf("revision %d, %v, was %d", after, err, before)
		}
	}
}
