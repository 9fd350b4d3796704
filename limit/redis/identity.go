package redis

import (
	"errors"
	"strings"

	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/limit"
)

// identity names a count: its limit, as far as that tells counts apart, and the
// values of its scope. It stands in keys, so that people who look can read it.
type identity struct {
	limit  string
	unit   plan.Unit
	period plan.Period
	zone   string
	scope  limit.Scope
}

func identify(l *plan.Limit, s limit.Scope) identity {
	id := identity{limit: l.Ident(), unit: l.Unit, period: l.Period, scope: s}
	if l.Period != "" {
		id.zone = l.Zone.String()
	}
	return id
}

var escape = strings.NewReplacer("%", "%25", "|", "%7C")

// String joins the fields; within one a bar and a per cent sign are escaped.
func (id identity) String() string {
	s := &id.scope
	fields := [...]string{
		id.limit, string(id.unit), string(id.period), id.zone,
		s.Organisation, s.Team, s.Application, s.Key, s.User, s.Model, s.Pool,
	}
	for i := range fields {
		if strings.ContainsAny(fields[i], "%|") {
			fields[i] = escape.Replace(fields[i])
		}
	}
	return strings.Join(fields[:], "|")
}

var errIdentity = errors.New("not the name of a count")

// parseIdentity reads what String wrote, and nothing else.
func parseIdentity(text string) (identity, error) {
	parts := strings.Split(text, "|")
	if len(parts) != 11 {
		return identity{}, errIdentity
	}
	for i, p := range parts {
		parts[i] = strings.ReplaceAll(strings.ReplaceAll(p, "%7C", "|"), "%25", "%")
	}
	id := identity{
		limit: parts[0], unit: plan.Unit(parts[1]), period: plan.Period(parts[2]), zone: parts[3],
		scope: limit.Scope{
			Organisation: parts[4], Team: parts[5], Application: parts[6], Key: parts[7], User: parts[8], Model: parts[9], Pool: parts[10],
		},
	}
	if id.String() != text {
		return identity{}, errIdentity
	}
	return id, nil
}
