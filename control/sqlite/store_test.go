package sqlite

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weirproxy/weir/control"
	"github.com/weirproxy/weir/control/storetest"
	"github.com/weirproxy/weir/internal/plan"
)

func open(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func key(i int) *control.Key {
	k := &control.Key{Name: fmt.Sprintf("k%d", i), Owner: plan.Owner{Team: "core", Roles: []string{"a", "b"}}, Created: time.UnixMicro(1)}
	k.Secrets = []control.Secret{{Created: time.UnixMicro(1)}}
	copy(k.Secrets[0].Hash[:], k.Name)
	return k
}

// made is a closed store of a directory with one key, and its files.
func made(t *testing.T) (dir, db, marker string) {
	t.Helper()
	dir = t.TempDir()
	s := open(t, dir)
	if _, err := s.Put(t.Context(), control.Change{Key: key(1)}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, filepath.Join(dir, File), filepath.Join(dir, idFile)
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t testing.TB) storetest.Place {
		dir := t.TempDir()
		return func(t testing.TB) control.Store { return open(t, dir) }
	})
}

// Whatever happened to the file, keys and revocations do not go without a word.
func TestLostStores(t *testing.T) {
	for name, tt := range map[string]struct {
		harm func(t *testing.T, db, marker string) error
		says string // "" when it opens
	}{
		"untouched": {func(*testing.T, string, string) error { return nil }, ""},
		"missing":   {func(_ *testing.T, db, _ string) error { return os.Remove(db) }, "is missing: stored keys would not open"},
		"emptied":   {func(_ *testing.T, db, _ string) error { return os.Truncate(db, 0) }, "is empty"},
		"garbage": {func(_ *testing.T, db, _ string) error {
			return os.WriteFile(db, []byte(strings.Repeat("garbage ", 4096)), 0o600)
		}, "not a database"},
		"another's": {func(t *testing.T, db, _ string) error {
			_, other, _ := made(t)
			return os.Rename(other, db)
		}, "not the store of this data directory"},
		"empty marker":   {func(_ *testing.T, _, marker string) error { return os.Truncate(marker, 0) }, "is empty"},
		"marker deleted": {func(_ *testing.T, _, marker string) error { return os.Remove(marker) }, ""},
		"begun anew": {func(_ *testing.T, db, marker string) error {
			_ = os.Remove(db)
			return os.Remove(marker)
		}, ""},
	} {
		dir, db, marker := made(t)
		if err := tt.harm(t, db, marker); err != nil {
			t.Fatal(err)
		}
		s, err := Open(t.Context(), dir)
		if err == nil {
			_ = s.Close()
		}
		if tt.says == "" && err != nil || tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), db)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A page that was overwritten is an error when its keys are read, not fewer keys.
func TestDamagedPages(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for i := range 500 {
		if _, err := s.Put(t.Context(), control.Change{Key: key(i)}); err != nil {
			t.Fatal(err)
		}
	}
	_ = s.Close()
	db := filepath.Join(dir, File)
	f, err := os.OpenFile(db, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	info, _ := f.Stat()
	junk := []byte(strings.Repeat("\xa5", int(info.Size()-16384)))
	if _, err := f.WriteAt(junk, 16384); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	s, err = Open(t.Context(), dir)
	if err == nil {
		_, err = s.Changes(t.Context(), 0, func(*control.Key, *control.Override) error { return nil })
		_ = s.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "malformed") {
		t.Errorf("a damaged store is read: %v", err)
	}
}

// The file can be replaced under a running weir, which would go on with the old one.
func TestReplacedWhileOpen(t *testing.T) {
	dir, db, _ := made(t)
	s := open(t, dir)
	if r, err := s.Revision(t.Context()); err != nil || r != 1 {
		t.Fatalf("%d, %v", r, err)
	}
	b, err := os.ReadFile(db)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(db, db+".old"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Revision(t.Context()); err == nil {
		t.Error("the file is gone, and nothing is said")
	}
	if err := os.WriteFile(db, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Revision(t.Context()); err == nil || !strings.Contains(err.Error(), "another file") {
		t.Errorf("%v", err)
	}
}

func TestOwnerOnly(t *testing.T) {
	dir, db, marker := made(t)
	if err := os.Chmod(db, 0o644); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir)
	if _, err := s.Put(t.Context(), control.Change{Key: key(2)}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{db, db + "-wal", db + "-shm", marker} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}

func TestNewerSchema(t *testing.T) {
	dir, _, _ := made(t)
	s := open(t, dir)
	if _, err := s.w.Exec(`INSERT INTO schema_version VALUES (99)`); err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	if _, err := Open(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "version 99") {
		t.Errorf("%v", err)
	}
}

func FuzzSecrets(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, secretSize))
	f.Add(encodeSecrets([]control.Secret{key(1).Secrets[0], {Expires: time.UnixMicro(7)}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, ok := decodeSecrets(b)
		if ok && (len(b) == 0 || len(b)%secretSize != 0) {
			t.Errorf("%d bytes are taken for secrets", len(b))
		}
		if ok && !bytes.Equal(encodeSecrets(list), b) {
			t.Errorf("%x is not what was read", b)
		}
	})
}

// BenchmarkFirstLook is what the start of weir costs with a full store.
func BenchmarkFirstLook(b *testing.B) {
	const n = 1_000_000
	s := open(b, b.TempDir())
	if _, err := s.w.Exec(`PRAGMA synchronous = OFF`); err != nil {
		b.Fatal(err)
	}
	if _, err := s.w.Exec(fmt.Sprintf(`WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i WHERE n < %d)
		INSERT INTO keys SELECT 'application-' || (n %% 1000) || '-key-' || n, 'application-' || (n %% 1000), '', '', 0, '', 0, 1, 'bench', 0, randomblob(32) || zeroblob(16), n FROM i`, n)); err != nil {
		b.Fatal(err)
	}
	if _, err := s.w.Exec(`UPDATE meta SET revision = (SELECT count(*) FROM keys)`); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		ring := plan.NewRing()
		f := control.NewFollower(s, ring, nil)
		if err := f.Sync(b.Context()); err != nil {
			b.Fatal(err)
		}
		if got := f.Revision(); got != n {
			b.Fatal(got)
		}
	}
}
