package redis

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/weirproxy/weir/control"
	"github.com/weirproxy/weir/internal/plan"
)

// Objects are JSON behind their revision and a space. Times are microseconds since
// 1970; 0 is never.

type keyJSON struct {
	Application string       `json:"application"`
	Team        string       `json:"team"`
	Roles       []string     `json:"roles,omitempty"`
	State       plan.State   `json:"state"`
	Note        string       `json:"note,omitempty"`
	Expires     int64        `json:"expires,omitempty"`
	Created     int64        `json:"created,omitempty"`
	Creator     string       `json:"creator,omitempty"`
	Rotated     int64        `json:"rotated,omitempty"`
	Secrets     []secretJSON `json:"secrets"`
}

type secretJSON struct {
	Hash    string `json:"hash"`
	Created int64  `json:"created,omitempty"`
	Expires int64  `json:"expires,omitempty"`
}

type overrideJSON struct {
	Name  string     `json:"name"`
	State plan.State `json:"state"`
}

type recordJSON struct {
	Time    int64    `json:"time"`
	Actor   string   `json:"actor"`
	Roles   []string `json:"roles,omitempty"`
	Action  string   `json:"action"`
	Object  string   `json:"object"`
	Before  string   `json:"before,omitempty"`
	After   string   `json:"after,omitempty"`
	Outcome string   `json:"outcome"`
	Detail  string   `json:"detail,omitempty"`
}

func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicros(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

// encodeObject is the kind, the name and the JSON of what changes.
func encodeObject(c *control.Change) (kind, name, text string, err error) {
	switch {
	case c.Key != nil:
		text, err = encodeKey(c.Key)
		return "k", c.Key.Name, text, err
	case c.Rollout != nil:
		return "r", c.Rollout.Model, string(c.Rollout.State), nil
	}
	text, err = encodeOverride(c.Override)
	return "o", hex.EncodeToString(c.Override.Hash[:]), text, err
}

func encodeKey(k *control.Key) (string, error) {
	j := keyJSON{
		Application: k.Owner.Application, Team: k.Owner.Team, Roles: k.Owner.Roles, State: k.State, Note: k.Note,
		Expires: micros(k.Expires), Created: micros(k.Created), Creator: k.Creator, Rotated: micros(k.Rotated),
	}
	for _, s := range k.Secrets {
		j.Secrets = append(j.Secrets, secretJSON{hex.EncodeToString(s.Hash[:]), micros(s.Created), micros(s.Expires)})
	}
	b, err := json.Marshal(j)
	return string(b), err
}

func encodeOverride(o *control.Override) (string, error) {
	b, err := json.Marshal(overrideJSON{o.Name, o.State})
	return string(b), err
}

func encodeRecord(r control.Record) (string, error) {
	b, err := json.Marshal(recordJSON{
		micros(r.Time), r.Actor, r.Roles, r.Action, r.Object, r.Before, r.After, string(r.Outcome), r.Detail,
	})
	return string(b), err
}

var errDamaged = errors.New("the store is damaged")

// revisioned divides what is stored.
func revisioned(text string, into any) (control.Revision, error) {
	number, body, ok := strings.Cut(text, " ")
	n, err := strconv.ParseInt(number, 10, 64)
	if !ok || err != nil || n <= 0 {
		return 0, errDamaged
	}
	d := json.NewDecoder(strings.NewReader(body))
	d.DisallowUnknownFields() // of a newer version: what it says must not be left out
	if err := d.Decode(into); err != nil || d.More() {
		return 0, errDamaged
	}
	return control.Revision(n), nil
}

func decodeHash(text string) (h plan.KeyHash, err error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(h) {
		return h, errDamaged
	}
	return plan.KeyHash(b), nil
}

func decodeKey(name, text string) (control.Key, error) {
	var j keyJSON
	revision, err := revisioned(text, &j)
	if err != nil || len(j.Secrets) == 0 || j.State > plan.StateRevoked || j.Expires < 0 || j.Created < 0 || j.Rotated < 0 {
		return control.Key{}, fmt.Errorf("key %q: %w", name, errDamaged)
	}
	k := control.Key{
		Name: name, Owner: plan.Owner{Application: j.Application, Team: j.Team, Roles: j.Roles}, State: j.State, Note: j.Note,
		Expires: fromMicros(j.Expires), Created: fromMicros(j.Created), Creator: j.Creator, Rotated: fromMicros(j.Rotated), Revision: revision,
	}
	if len(k.Owner.Roles) == 0 {
		k.Owner.Roles = nil
	}
	for _, s := range j.Secrets {
		h, err := decodeHash(s.Hash)
		if err != nil || s.Created < 0 || s.Expires < 0 {
			return control.Key{}, fmt.Errorf("key %q: %w", name, errDamaged)
		}
		k.Secrets = append(k.Secrets, control.Secret{Hash: h, Created: fromMicros(s.Created), Expires: fromMicros(s.Expires)})
	}
	return k, nil
}

func decodeOverride(hash, text string) (control.Override, error) {
	var j overrideJSON
	revision, err := revisioned(text, &j)
	if err != nil || j.State > plan.StateRevoked {
		return control.Override{}, fmt.Errorf("override %s: %w", hash, errDamaged)
	}
	h, err := decodeHash(hash)
	if err != nil {
		return control.Override{}, fmt.Errorf("override %q: %w", hash, err)
	}
	return control.Override{Hash: h, Name: j.Name, State: j.State, Revision: revision}, nil
}

func decodeRecord(id int64, text string) (control.Record, error) {
	var j recordJSON
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		return control.Record{}, fmt.Errorf("record %d: %w", id, errDamaged)
	}
	return control.Record{
		ID: id, Time: fromMicros(j.Time), Actor: j.Actor, Roles: j.Roles, Action: j.Action, Object: j.Object,
		Before: j.Before, After: j.After, Outcome: control.Outcome(j.Outcome), Detail: j.Detail,
	}, nil
}

// disabled tells whether a field of an INFO answer is 0.
func disabled(info, field string) bool {
	for line := range strings.Lines(info) {
		if strings.TrimSpace(line) == field+":0" {
			return true
		}
	}
	return false
}
