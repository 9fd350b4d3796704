package history

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var at = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

func add(t *testing.T, s *Store, version, refused string) Entry {
	t.Helper()
	e, err := s.Add(Entry{Version: version, Time: at, By: "file", Refused: refused}, []byte("text of "+version))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "versions")
	s := Open(dir)
	if list, err := s.Entries(); err != nil || len(list) != 0 {
		t.Fatal(list, err)
	}
	for i := range keep + 5 {
		add(t, s, fmt.Sprintf("version-%d", i), "")
		if i == 2 {
			if err := s.Pin(&Pin{Number: 3, Time: at, File: "hash"}); err != nil {
				t.Fatal(err)
			}
		}
	}
	// Another process finds the same, and goes on counting.
	s = Open(dir)
	list, err := s.Entries()
	if err != nil || len(list) != keep+1 || list[0].Number != 3 || list[1].Number != 6 {
		t.Fatalf("%d entries, %v", len(list), err)
	}
	if text, err := s.Text(3); err != nil || string(text) != "text of version-2" {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := s.Text(1); err == nil {
		t.Error("what went is still there")
	}
	pin, err := s.Pinned()
	if diff := cmp.Diff(&Pin{Number: 3, Time: at, File: "hash"}, pin); err != nil || diff != "" {
		t.Error(err, diff)
	}
	for range 2 {
		if err := s.Pin(nil); err != nil {
			t.Error(err)
		}
	}
	if pin, err := s.Pinned(); pin != nil || err != nil {
		t.Error(pin, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "pin.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Pinned(); err == nil {
		t.Error("a damaged pin is taken for none")
	}
	if e := add(t, s, "next", ""); e.Number != keep+6 {
		t.Errorf("number %d", e.Number)
	}
	if info, err := os.Stat(s.file(7, textSuffix)); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info, err)
	}
}

func TestFind(t *testing.T) {
	list := []Entry{{Number: 1, Version: "aaaaaa11"}, {Number: 2, Version: "bbbbbb22"}, {Number: 3, Version: "cccccc33", Refused: "no such filter"}, {Number: 4, Version: "bbbbbb22"}, {Number: 5, Version: "dddddd55"}}
	for _, tc := range []struct {
		what, current string
		want          int
	}{
		{"", "dddddd55", 4}, {"", "bbbbbb22", 5}, {"2", "", 2}, {"bbbbbb", "", 4}, {"aaaaaa1", "", 1}, {"bbb", "", 0}, {"3", "", 0}, {"6", "", 0}, {"zzzzzz", "", 0},
	} {
		e, err := Find(list, tc.what, tc.current)
		if (err != nil) != (tc.want == 0) || err == nil && e.Number != tc.want {
			t.Errorf("%q from %s: %d, %v", tc.what, tc.current, e.Number, err)
		}
	}
	if _, err := Find(list[:1], "", "aaaaaa11"); err == nil {
		t.Error("found what there is not")
	}
}

// A rollback to the one before must be to another text: a credential that changed since
// the bad change made an entry of its own.
func TestOthers(t *testing.T) {
	s := Open(t.TempDir())
	for _, text := range []string{"good", "bad", "bad"} {
		if _, err := s.Add(Entry{}, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	list, err := s.Entries()
	if err != nil {
		t.Fatal(err)
	}
	if others := s.Others(list, 3); len(others) != 1 || others[0].Number != 1 {
		t.Errorf("%+v", others)
	}
	if others := s.Others(list, 9); len(others) != 3 {
		t.Errorf("of one that is not kept: %+v", others)
	}
}
