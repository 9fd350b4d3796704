package sqlitedb

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMigrate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a file?x#y.db")
	if err := Create(path); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info, err)
	}
	db, err := Open(path, Immediate)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	first := `CREATE TABLE a (x INTEGER)`
	second := `ALTER TABLE a ADD COLUMN y INTEGER NOT NULL DEFAULT 7`
	if err := Migrate(t.Context(), db, []string{first}); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(`INSERT INTO a VALUES (1)`); err != nil {
		t.Fatal(err)
	}
	// A migration that fails leaves the version before it.
	if err := Migrate(t.Context(), db, []string{first, second, `nonsense`}); err == nil || !strings.Contains(err.Error(), "schema version 3") {
		t.Error(err)
	}
	for range 2 { // the second time there is nothing to do
		if err := Migrate(t.Context(), db, []string{first, second}); err != nil {
			t.Fatal(err)
		}
	}
	var y int
	if err := db.QueryRow(`SELECT y FROM a WHERE x = 1`).Scan(&y); err != nil || y != 7 {
		t.Error(y, err)
	}
	if err := Migrate(t.Context(), db, []string{first}); err == nil || !strings.Contains(err.Error(), "version 2; this program knows 1") {
		t.Error(err)
	}
}
