package limit

import "strings"

// Scope says whose count it is. Fields by which the limit does not tell apart are
// empty.
type Scope struct {
	Organisation, Team, Application, Key, User, Model, Pool string
}

// Each calls fn with each dimension that is not empty.
func (s Scope) Each(fn func(dimension, value string)) {
	for _, d := range [...][2]string{
		{"organisation", s.Organisation}, {"team", s.Team}, {"application", s.Application}, {"key", s.Key},
		{"user", s.User}, {"model", s.Model}, {"pool", s.Pool},
	} {
		if d[1] != "" {
			fn(d[0], d[1])
		}
	}
}

// Map is the scope by dimension.
func (s Scope) Map() map[string]string {
	m := map[string]string{}
	s.Each(func(dimension, value string) { m[dimension] = value })
	return m
}

// String is the scope as "team=x, model=y"; "all" when nothing is told apart.
func (s Scope) String() string {
	var b strings.Builder
	s.Each(func(dimension, value string) {
		if b.Len() > 0 {
			b.WriteString(", ")
		}
		b.WriteString(dimension + "=" + value)
	})
	if b.Len() == 0 {
		return "all"
	}
	return b.String()
}
