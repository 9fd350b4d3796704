package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/weirproxy/weir/control"
	"github.com/weirproxy/weir/internal/config"
	"github.com/weirproxy/weir/internal/history"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/xds"
)

// VersionsDir is the folder of the configurations that were in force, within the data
// directory.
const VersionsDir = "versions"

// source is the text of a configuration and where it came from.
type source struct {
	text []byte
	file string // the hash of the file as it was read; "" when it could not be
	pin  *history.Pin
}

// readSource reads what is to be in force: the configuration file, or the version that
// is pinned while the file is the one that it was.
func readSource(versions *history.Store, path string) (source, error) {
	text, err := config.Text(path)
	s := source{text: text}
	if err == nil {
		s.file = history.Hash(text)
	}
	pin, pinErr := versions.Pinned()
	if pinErr != nil {
		return s, pinErr
	}
	if pin == nil || err == nil && pin.File != s.file {
		return s, err
	}
	if s.text, err = versions.Text(pin.Number); err != nil {
		return s, fmt.Errorf("the pinned version: %w", err)
	}
	s.pin = pin
	return s, nil
}

// InForce is the text that a start with this file and data directory would bring into
// force, and the number of the version if a rollback pinned one; 0 is the file itself. An
// empty data directory is the one that the file names.
func InForce(path, dataDir string) (text []byte, pinned int, err error) {
	s, err := readSource(openVersions(dataDirOf(Options{ConfigPath: path, DataDir: dataDir})), path)
	if err == nil && s.pin != nil {
		pinned = s.pin.Number
	}
	return s.text, pinned, err
}

// pinned is the text of the version that is in force in the place of the file.
func (a *app) pinned() (text []byte, ok bool) {
	s, err := readSource(a.versions, a.o.ConfigPath)
	return s.text, err == nil && s.pin != nil
}

// settlePin takes the pin away unless what is in force came by it: then the file has
// changed, and going back to that content later is a new intention.
func (a *app) settlePin(by *history.Pin) {
	if by != nil {
		return
	}
	if err := a.versions.Pin(nil); err != nil {
		a.log.Error("the pinned version would be in force again after a restart", "err", err)
	}
}

// started keeps what came into force at the start.
func (a *app) started(p *plan.Plan, err error) {
	a.record(p, a.text, "start", err)
	if err == nil {
		a.settlePin(a.pin)
	}
}

// record keeps what came into force, or was refused by an Envoy, with how it came.
func (a *app) record(p *plan.Plan, text []byte, by string, err error) {
	e := history.Entry{Version: p.Version, Time: time.Now().UTC(), By: by}
	var rejected *xds.RejectedError
	switch {
	case errors.As(err, &rejected):
		e.Refused = rejected.Error()
	case err != nil:
		return // nobody saw it
	}
	if list, err := a.versions.Entries(); err == nil && len(list) > 0 && e.Refused == "" {
		if last := list[len(list)-1]; last.Version == e.Version && last.Refused == "" { // a restart
			a.number.Store(int64(last.Number))
			return
		}
	}
	kept, err := a.versions.Add(e, text)
	if err != nil {
		a.log.Error("this configuration cannot be gone back to", "version", p.Version, "err", err)
		return
	}
	if e.Refused == "" {
		a.number.Store(int64(kept.Number))
	}
}

// VersionsReport is what weir history shows.
type VersionsReport struct {
	Entries []history.Entry `json:"versions"`
	Current string          `json:"current"` // the version in force
	Number  int             `json:"number"`  // of the entry by which it came into force
	Pin     *history.Pin    `json:"pin,omitempty"`
}

func (a *app) versionsNow(context.Context, struct{}) (*VersionsReport, error) {
	p := a.plan.Load()
	if p == nil {
		return nil, errors.New("no configuration is in force yet")
	}
	r := &VersionsReport{Current: p.Version, Number: int(a.number.Load())}
	var err error
	if r.Entries, err = a.versions.Entries(); err == nil {
		r.Pin, err = a.versions.Pinned()
	}
	return r, err
}

// RollbackRequest says which version is to be in force.
type RollbackRequest struct {
	Version string `json:"version,omitempty"` // a number, or the beginning of a version; "" is the one before
	Release bool   `json:"release,omitempty"` // the file instead
}

// RollbackReport is what came of it.
type RollbackReport struct {
	Number     int      `json:"number,omitempty"` // of the version that is in force again; 0 for the file
	Was, Is    string   // versions
	Millis     int64    `json:"ms"` // from the request until every Envoy had it and decisions were made by it
	NotChanged []string `json:"not_changed,omitempty"`
}

// rollback brings an earlier configuration into force and pins it, or brings the file
// into force again.
func (a *app) rollback(ctx context.Context, in RollbackRequest) (*RollbackReport, error) {
	start := time.Now()
	// What Envoys were told is not left half done because who asked has gone.
	ctx = context.WithoutCancel(ctx)
	a.changing.Lock()
	defer a.changing.Unlock()
	current := a.plan.Load()
	if current == nil {
		return nil, errors.New("no configuration is in force yet")
	}
	file, fileErr := config.Text(a.o.ConfigPath)
	was := history.Hash(file)
	if fileErr != nil { // it will be read again as it was, and that is no change
		was = a.lastFile()
	}
	var to history.Entry
	text, by := file, "release"
	if in.Release {
		if fileErr != nil {
			return nil, fileErr
		}
	} else {
		list, err := a.versions.Entries()
		if err != nil {
			return nil, err
		}
		if in.Version == "" { // the same text with another secret in a file undoes nothing
			list = a.versions.Others(list, int(a.number.Load()))
		}
		if to, err = history.Find(list, in.Version, current.Version); err != nil {
			return nil, err
		}
		if text, err = a.versions.Text(to.Number); err != nil {
			return nil, err
		}
		by = fmt.Sprintf("rollback to %d", to.Number)
	}
	p, err := a.compile(text)
	if err != nil {
		return nil, fmt.Errorf("%s is no good any more: %w", by, err)
	}
	if p.Version != current.Version {
		err = a.apply(ctx, p)
		a.record(p, text, by, err)
		if err != nil {
			return nil, err
		}
	}
	// The pin after it is in force: it must not hold what could not be.
	pin := &history.Pin{Number: to.Number, Time: time.Now().UTC(), File: was}
	if in.Release {
		pin = nil
	}
	if err := a.versions.Pin(pin); err != nil {
		return nil, fmt.Errorf("it is in force, and is not after a restart: %w", err)
	}
	a.reload.note(nil, time.Now())
	a.audit(ctx, "config."+strings.Fields(by)[0], current.Version, p.Version)
	a.log.Warn("configuration: "+by, "was", current.Version, "is", p.Version)
	return &RollbackReport{
		Number: to.Number, Was: current.Version, Is: p.Version, Millis: time.Since(start).Milliseconds(), NotChanged: needsRestart(current, p),
	}, nil
}

// lastFile is the hash of the file as it was read last: what a pin is to, or else what is
// in force.
func (a *app) lastFile() string {
	if pin, err := a.versions.Pinned(); err == nil && pin != nil {
		return pin.File
	}
	text, err := a.versions.Text(int(a.number.Load()))
	if err != nil {
		return ""
	}
	return history.Hash(text)
}

// audit notes what an operator did by the socket, which only the user that weir runs as
// can open.
func (a *app) audit(ctx context.Context, action, was, is string) {
	if a.controls == nil {
		return // there is no audit where no request is decided
	}
	err := a.controls.keeper.Store.Note(ctx, control.Record{
		Time: time.Now().UTC(), Actor: fmt.Sprintf("socket:uid=%d", os.Getuid()), Action: action, Object: "config", Before: was, After: is, Outcome: control.Done,
	})
	if err != nil {
		a.log.Error("the audit lacks a change", "action", action, "err", err)
	}
}

func openVersions(dir string) *history.Store { return history.Open(filepath.Join(dir, VersionsDir)) }
