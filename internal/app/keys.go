package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/redis/rueidis"

	"github.com/weirproxy/weir/control"
	controlredis "github.com/weirproxy/weir/control/redis"
	"github.com/weirproxy/weir/control/sqlite"
	"github.com/weirproxy/weir/internal/config"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/limit/redis"
)

// openShared is how the store of several machines is opened.
type openShared func(ctx context.Context, c rueidis.Client, deployment, dir string) (*controlredis.Store, error)

// openControl opens the control store: that of several machines where there is a
// limit store, at the same server, and a file otherwise. It refuses to leave keys
// behind that are in the other place.
func openControl(ctx context.Context, dir string, p *plan.Plan, open openShared) (control.Store, error) {
	if p.Store == nil {
		marker := controlredis.Marker(dir)
		if exists(marker) {
			return nil, fmt.Errorf("control store: the configuration has no limit_store, where keys and revocations were kept: none of them would hold. Put it back, or, to go on with those of this machine, delete %s", marker)
		}
		return sqlite.Open(ctx, dir)
	}
	if err := leftBehind(ctx, dir); err != nil {
		return nil, err
	}
	return dialControl(ctx, dir, p.Store, open)
}

// controlTimeout is how long the control store may take to be reached.
const controlTimeout = 5 * time.Second

func dialControl(ctx context.Context, dir string, at *plan.LimitStore, open openShared) (*controlredis.Store, error) {
	o := storeOptions(at)
	client, err := redis.Connect(&o.Server, controlTimeout)
	if err != nil {
		return nil, fmt.Errorf("control store: %w", err)
	}
	if err := redis.CheckServer(ctx, client); err != nil {
		client.Close()
		return nil, fmt.Errorf("control store: %w", err)
	}
	return open(ctx, client, at.Name, dir)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, os.ErrNotExist)
}

// leftBehind holds that no keys are in a file of this machine when they are kept
// elsewhere: they would not open, and what they revoke would.
func leftBehind(ctx context.Context, dir string) error {
	path := filepath.Join(dir, sqlite.File)
	if !exists(path) {
		return nil
	}
	was, err := sqlite.Open(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { _ = was.Close() }() // it was read only
	if there, err := was.Revision(ctx); err != nil || there == 0 {
		return err
	}
	return fmt.Errorf("control store: %s has keys or revocations, and they are kept at the limit store from now on: take them there (weir key import), or, to go on without them, move the file away", path)
}

// AttachStoredKeys gives a plan the keys that its data directory has, as they are
// now: for commands that decide as a running weir would. Without a control store it
// does nothing.
func AttachStoredKeys(ctx context.Context, p *plan.Plan) (err error) {
	if !exists(filepath.Join(p.DataDir, sqlite.File)) && !exists(controlredis.Marker(p.DataDir)) {
		return nil
	}
	store, err := openControl(ctx, p.DataDir, p, controlredis.OpenBeside)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	ring := plan.NewRing()
	if err := control.NewFollower(store, ring, nil).Sync(ctx); err != nil {
		return err
	}
	ring.Bind(p)
	p.Stored = ring
	return nil
}

// imported is added to the name of a file whose keys are elsewhere now.
const imported = ".imported"

// ImportKeys takes the keys and revocations that a data directory has to the limit
// store of a configuration, and puts their file aside. No weir may run on the
// directory. It can be repeated when it was interrupted.
func ImportKeys(ctx context.Context, configPath, dataDir string) (_ control.Imported, aside string, err error) {
	p, err := config.Load(configPath, config.Options{DataDir: dataDir, ReadOnly: true})
	if err != nil {
		return control.Imported{}, "", err
	}
	if p.Store == nil {
		return control.Imported{}, "", fmt.Errorf("%s: no limit_store: keys stay in the data directory", configPath)
	}
	dir, err := filepath.Abs(p.DataDir)
	if err != nil {
		return control.Imported{}, "", err
	}
	path := filepath.Join(dir, sqlite.File)
	if _, err := os.Stat(path); err != nil { // it must not be made by looking
		return control.Imported{}, "", fmt.Errorf("no keys to import: %w", err)
	}
	release, err := lockDataDir(dir)
	if err != nil {
		return control.Imported{}, "", err
	}
	defer release()
	n, err := importKeys(ctx, dir, p)
	if err == nil {
		aside = path + imported
		err = os.Rename(path, aside)
	}
	return n, aside, err
}

func importKeys(ctx context.Context, dir string, p *plan.Plan) (_ control.Imported, err error) {
	from, err := sqlite.Open(ctx, dir)
	if err != nil {
		return control.Imported{}, err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	if err := control.CheckHashSecret(ctx, from, p); err != nil {
		return control.Imported{}, err
	}
	to, err := dialControl(ctx, dir, p.Store, controlredis.Open)
	if err != nil {
		return control.Imported{}, err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	n, err := control.Import(ctx, from, to, control.Actor{Name: fmt.Sprintf("import:uid=%d", os.Getuid())}, time.Now())
	if err != nil {
		return n, err
	}
	// Read once, so that the directory keeps how far the store is.
	_, err = to.Changes(ctx, 0, func(*control.Key, *control.Override) error { return nil })
	return n, err
}
