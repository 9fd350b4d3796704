package sqlite

// migrations bring a database from one version to the next: the first makes it.
// Those that were released are never changed, only followed by others.
//
// Times are microseconds since the epoch, 0 is never. Every change has a revision
// of its own.
var migrations = []string{`
-- One row.
CREATE TABLE meta (
	one        INTEGER PRIMARY KEY CHECK (one = 1),
	id         TEXT NOT NULL,    -- tells this store from any other
	revision   INTEGER NOT NULL,
	hash_check BLOB              -- tells the secret of key hashes from another
);
INSERT INTO meta VALUES (1, lower(hex(randomblob(16))), 0, NULL);

CREATE TABLE keys (
	name        TEXT PRIMARY KEY,
	application TEXT NOT NULL,
	team        TEXT NOT NULL,
	roles       TEXT NOT NULL, -- separated by commas
	state       INTEGER NOT NULL,
	note        TEXT NOT NULL,
	expires_us  INTEGER NOT NULL,
	created_us  INTEGER NOT NULL,
	creator     TEXT NOT NULL,
	rotated_us  INTEGER NOT NULL,
	secrets     BLOB NOT NULL, -- the newest first, 48 bytes each; beside the rest, as a start reads all of it
	revision    INTEGER NOT NULL
) WITHOUT ROWID;
CREATE UNIQUE INDEX keys_revision ON keys (revision);
CREATE INDEX keys_application ON keys (application, name);
CREATE INDEX keys_team ON keys (team, name);

-- Whose a secret is: each is of one key.
CREATE TABLE hashes (
	hash BLOB PRIMARY KEY,
	key  TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX hashes_key ON hashes (key);

-- What was decided about keys of the configuration.
CREATE TABLE overrides (
	hash     BLOB PRIMARY KEY,
	name     TEXT NOT NULL,
	state    INTEGER NOT NULL,
	revision INTEGER NOT NULL
) WITHOUT ROWID;
CREATE UNIQUE INDEX overrides_revision ON overrides (revision);

CREATE TABLE audit (
	id      INTEGER PRIMARY KEY AUTOINCREMENT,
	time_us INTEGER NOT NULL,
	actor   TEXT NOT NULL,
	roles   TEXT NOT NULL, -- separated by commas
	action  TEXT NOT NULL,
	object  TEXT NOT NULL,
	before  TEXT NOT NULL,
	after   TEXT NOT NULL,
	outcome TEXT NOT NULL,
	detail  TEXT NOT NULL
);
CREATE INDEX audit_object ON audit (object);
`, `
-- How far the rollouts of models are.
CREATE TABLE rollouts (
	model    TEXT PRIMARY KEY,
	state    TEXT NOT NULL, -- JSON
	revision INTEGER NOT NULL
) WITHOUT ROWID;

-- What each process counted since the last change of a rollout.
CREATE TABLE tallies (
	model   TEXT NOT NULL,
	process TEXT NOT NULL,
	counts  TEXT NOT NULL, -- JSON
	PRIMARY KEY (model, process)
) WITHOUT ROWID;
`}
