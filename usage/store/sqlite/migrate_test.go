package sqlite

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/sqlitedb"
	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
	"github.com/weirproxy/weir/usage/store"
)

// A database of the first version keeps its sums, and takes what is new.
func TestFirstVersionIsBroughtUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "usage.db")
	db, err := sqlitedb.Open(path, sqlitedb.Immediate)
	if err != nil {
		t.Fatal(err)
	}
	hour := noon.Add(-2 * time.Hour).Unix()
	for _, text := range []string{
		migrations[0],
		`CREATE TABLE schema_version (version INTEGER NOT NULL)`, `INSERT INTO schema_version VALUES (1)`,
		`INSERT INTO labels VALUES (1, 'key-1', 'app-1', 'team-1', 'model-1', 'b', 'completed', '', 'chat', 'default')`,
		fmt.Sprintf(`INSERT INTO events VALUES (x'%032x', %d, 1, 10, 2, 5, 1, 700, 3, x'')`, 99, (hour+1)*1_000_000),
		fmt.Sprintf(`INSERT INTO usage_minute VALUES (%d, 'team-1', 'model-1', 'b', 'completed', 1, 10, 2, 5, 1, 700, 3)`, hour),
		fmt.Sprintf(`INSERT INTO usage_hour VALUES (%d, 'key-1', 'app-1', 'team-1', 'model-1', 1, 10, 2, 5, 1, 700, 3)`, hour),
	} {
		if _, err := db.Exec(text); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Write(t.Context(), records(t, []*usagev1.Event{event(1, noon)}), store.Cursor{}); err != nil {
		t.Fatal(err)
	}
	want := []store.Row{{
		By: []string{"team-1"}, Requests: 2,
		Tokens: ai.Usage{Input: 11, CachedInput: 3, CacheWrite: 2, AudioInput: 3, ImageInput: 4, Output: 27, Reasoning: 2, AudioOutput: 2, ImageOutput: 3},
		Cost:   710, InputCost: 3, OutputCost: 12, AbandonedCost: 5, Abandoned: 31, Estimated: 25,
	}}
	for _, by := range [][]store.Dimension{{store.Team}, {store.Team, store.Key}, {store.Team, store.Rule}} { // minutes, hours, events
		got, err := s.Usage(t.Context(), store.Query{Since: noon.Add(-5 * time.Hour), Until: noon.Add(time.Hour), By: by})
		if err != nil || len(got) != 1 {
			t.Fatal(got, err)
		}
		got[0].By = got[0].By[:1]
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("by %v: %s", by, diff)
		}
	}
}
