package sqlite

import (
	"fmt"
	"strings"
)

// migrations bring a database from one version to the next: the first makes it.
// Those that were released are never changed, only followed by others.
//
// Times are microseconds since the epoch, of the request's end where nothing
// else is said; ids are 16 bytes. The classes of tokens are disjoint.
var migrations = []string{`
-- What events have in common: names of the configuration and words of bounded
-- sets, so there are few rows.
CREATE TABLE labels (
	id          INTEGER PRIMARY KEY,
	key         TEXT NOT NULL,
	application TEXT NOT NULL,
	team        TEXT NOT NULL,
	model       TEXT NOT NULL,
	pool        TEXT NOT NULL,
	outcome     TEXT NOT NULL,
	reason      TEXT NOT NULL,
	kind        TEXT NOT NULL,
	rule        TEXT NOT NULL,
	UNIQUE (key, application, team, model, pool, outcome, reason, kind, rule)
);

-- An event is one value, beside what is searched and summed: a column costs
-- about as much time as a hundred bytes of it.
CREATE TABLE events (
	id           BLOB PRIMARY KEY,
	end_us       INTEGER NOT NULL,
	labels       INTEGER NOT NULL REFERENCES labels (id),
	input        INTEGER NOT NULL,
	cached_input INTEGER NOT NULL,
	output       INTEGER NOT NULL,
	reasoning    INTEGER NOT NULL,
	cost_nanousd INTEGER NOT NULL,
	estimated    INTEGER NOT NULL, -- tokens that were estimated
	event        BLOB NOT NULL     -- weir.usage.v1.Event
) WITHOUT ROWID;
CREATE INDEX events_end ON events (end_us);

CREATE TABLE usage_minute (
	minute       INTEGER NOT NULL, -- seconds since the epoch
	team         TEXT NOT NULL,
	model        TEXT NOT NULL,
	pool         TEXT NOT NULL,
	outcome      TEXT NOT NULL,
	requests     INTEGER NOT NULL,
	input        INTEGER NOT NULL,
	cached_input INTEGER NOT NULL,
	output       INTEGER NOT NULL,
	reasoning    INTEGER NOT NULL,
	cost_nanousd INTEGER NOT NULL,
	estimated    INTEGER NOT NULL, -- tokens that were estimated
	PRIMARY KEY (minute, team, model, pool, outcome)
) WITHOUT ROWID;

CREATE TABLE usage_hour (
	hour         INTEGER NOT NULL, -- seconds since the epoch
	key          TEXT NOT NULL,
	application  TEXT NOT NULL,
	team         TEXT NOT NULL,
	model        TEXT NOT NULL,
	requests     INTEGER NOT NULL,
	input        INTEGER NOT NULL,
	cached_input INTEGER NOT NULL,
	output       INTEGER NOT NULL,
	reasoning    INTEGER NOT NULL,
	cost_nanousd INTEGER NOT NULL,
	estimated    INTEGER NOT NULL,
	PRIMARY KEY (hour, key, application, team, model)
) WITHOUT ROWID;

-- One row: how far the spool is stored, and before what time single events were
-- deleted.
CREATE TABLE progress (
	one            INTEGER PRIMARY KEY CHECK (one = 1),
	segment        INTEGER NOT NULL,
	offset         INTEGER NOT NULL,
	trimmed_us     INTEGER NOT NULL
);
INSERT INTO progress VALUES (1, 0, 0, 0);
`, addColumns("events", "usage_minute", "usage_hour")}

// addColumns adds what the second version sums: input is what is in no other class,
// output is all of it; abandoned are the tokens of attempts that were given up,
// which are in no other column, though what they cost is in cost_nanousd.
func addColumns(tables ...string) string {
	var b strings.Builder
	for _, table := range tables {
		for _, column := range []string{
			"cache_write", "audio_input", "image_input", "audio_output", "image_output",
			"input_nanousd", "output_nanousd", "abandoned", "abandoned_nanousd",
		} {
			fmt.Fprintf(&b, "ALTER TABLE %s ADD COLUMN %s INTEGER NOT NULL DEFAULT 0;\n", table, column)
		}
	}
	return b.String()
}
